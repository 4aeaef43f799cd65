"""Laws of jobs and tables: made once, whole or not at all, and nothing wrong is accepted."""

import os
import platform
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from study import closure, jobs, settings, tables, verify
from study.jobs import MANIFEST, Job

ROOT = closure.ROOT
COUNT = []


def toy_run(arguments):
    COUNT.append(arguments)
    if arguments.get("fail"):
        raise ValueError("no such layer")
    rng = np.random.default_rng(arguments["seed"])
    bits = pd.DataFrame({"run": arguments["seed"], "layer": ["a", "b"], "i_xz": rng.random(2)})
    return {"bits": bits, "facts": pd.DataFrame({"run": [arguments["seed"]], "source": ["x"]})}


@pytest.fixture
def store(monkeypatch, tmp_path):
    """A chapter of its own, with its jobs in a folder whose path has spaces."""
    toy = SimpleNamespace(
        run=toy_run, jobs=lambda chosen: {f"s-{n}": {"seed": n} for n in range(chosen.runs)}
    )
    monkeypatch.setattr(settings, "chapter_module", lambda chapter: toy)
    monkeypatch.setattr(jobs, "fingerprint", lambda chapter: "f")
    monkeypatch.setattr(tables, "fingerprint", lambda chapter: "f")
    monkeypatch.setattr(verify, "fingerprint", lambda chapter: "f")
    monkeypatch.setenv("STUDY_JOBS", str(tmp_path / "a folder" / "jobs"))
    monkeypatch.delenv("STUDY_TABLES", raising=False)
    COUNT.clear()
    return tmp_path / "a folder"


def job(seed=0, **more):
    return Job("toy", f"s-{seed}", {"seed": seed, **more})


def leftovers(folder):
    return [path.name for path in folder.rglob(".*")]


# Jobs


def test_a_job_is_made_once_and_says_what_it_was(store):
    folder = jobs.make(job(3))
    assert jobs.make(job(3)) == folder
    assert len(COUNT) == 1
    found, facts = jobs.read_set(folder)
    pd.testing.assert_frame_equal(found["bits"], toy_run({"seed": 3})["bits"])
    assert facts["arguments"] == {"seed": 3}
    assert facts["seconds"] >= 0
    assert set(facts["versions"]) == {*jobs.PACKAGES, "python"}
    assert leftovers(store) == []


def test_other_arguments_or_sources_are_another_job(store, monkeypatch):
    keys = {job(0).key, job(1).key, job(0, more=1).key, Job("other", "s-0", {"seed": 0}).key}
    monkeypatch.setattr(jobs, "fingerprint", lambda chapter: "g")
    assert len(keys | {job(0).key}) == 5


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "bits.parquet").write_bytes((f / "bits.parquet").read_bytes()[:-9]),
        lambda f: (f / "bits.parquet").write_bytes((f / "facts.parquet").read_bytes()),
        lambda f: (f / "bits.parquet").unlink(),
        lambda f: (f / MANIFEST).write_text("{"),
        lambda f: (f / MANIFEST).write_text("[]"),
        lambda f: (f / MANIFEST).write_text(
            (f / MANIFEST).read_text().replace('"format": 1', '"format": 9')
        ),
    ],
    ids=["truncated", "swapped", "missing", "no JSON", "no manifest", "another version"],
)
def test_a_damaged_job_is_named_and_made_again(store, damage):
    folder = jobs.make(job())
    damage(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=str(folder.name)):
        jobs.read_set(folder)
    with pytest.warns(UserWarning, match="made again"):
        jobs.make(job())
    assert len(COUNT) == 2
    assert set(jobs.read_set(folder)[0]) == {"bits", "facts"}
    assert leftovers(store) == []


def test_a_job_that_fails_says_which_and_leaves_nothing(store):
    with pytest.raises(RuntimeError, match=r"job s-0 of toy failed: ValueError: no such layer"):
        jobs.make(job(fail=True))
    assert not (store / "jobs").exists()


def test_two_runs_in_one_folder_at_once_leave_one_whole_job(store):
    threads = [threading.Thread(target=jobs.make, args=(job(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(jobs.read_set(job().folder)[0]) == {"bits", "facts"}
    assert leftovers(store) == []


def test_a_full_disk_is_named_and_nothing_is_left(store):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))  # bytes a file may have
    try:
        with pytest.raises(OSError, match="nothing was written") as caught:
            jobs.make(job())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert str(job().folder) in str(caught.value)
    assert list((store / "jobs").rglob("*.parquet")) == []
    assert leftovers(store) == []


def test_a_folder_that_cant_be_written_is_named(store, monkeypatch):
    monkeypatch.setenv("STUDY_JOBS", "/proc/jobs")  # no one can write there, root included
    with pytest.raises(OSError, match="/proc/jobs/toy"):
        jobs.make(job())


def test_an_older_set_stays_until_the_new_one_is_whole(store, monkeypatch):
    folder = store / "set"
    jobs.write_set(folder, toy_run({"seed": 0}), {"chapter": "toy"})
    before = (folder / "bits.parquet").read_bytes()

    def fail(*given, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", fail)
    with pytest.raises(OSError, match="No space left"):
        jobs.write_set(folder, toy_run({"seed": 1}), {"chapter": "toy"})
    assert (folder / "bits.parquet").read_bytes() == before
    assert leftovers(store) == []


@pytest.mark.slow
def test_a_job_that_is_killed_leaves_nothing_to_be_mistaken(tmp_path):
    code = (
        "import os, time\nfrom pathlib import Path\nimport pandas as pd\nfrom study import jobs\n"
        "write = pd.DataFrame.to_parquet\n"
        "def slow(self, path, **more):\n"
        "    write(self, path, **more); print('half', flush=True); time.sleep(60)\n"
        "pd.DataFrame.to_parquet = slow\n"
        f"jobs.write_set(Path({str(tmp_path / 'job')!r}), {{'a': pd.DataFrame({{'x': [1]}}),"
        " 'b': pd.DataFrame({'x': [2]})}, {})\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as run:
        assert run.stdout.readline() == b"half\n"
        run.send_signal(signal.SIGKILL)
    assert not (tmp_path / "job").exists()
    jobs.write_set(tmp_path / "job", {"a": pd.DataFrame({"x": [3]})}, {})
    assert jobs.read_set(tmp_path / "job")[0]["a"]["x"].tolist() == [3]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc to look at processes")
def test_workers_end_with_the_process_that_started_them(tmp_path):
    code = (
        "import os, time\nfrom concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context\nfrom study.tables import _end_with_parent\n"
        "def work():\n    print(os.getpid(), flush=True)\n    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    with ProcessPoolExecutor(1, get_context('spawn'), _end_with_parent) as pool:\n"
        "        pool.submit(work).result()\n"
    )
    (tmp_path / "parent.py").write_text(code)
    command = [sys.executable, str(tmp_path / "parent.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment) as run:
        worker = int(run.stdout.readline())
        run.send_signal(signal.SIGKILL)
    end = time.monotonic() + 10
    while not ended(worker) and time.monotonic() < end:
        time.sleep(0.05)
    assert ended(worker)


def ended(pid):
    """Whether a process is gone, or has ended and nobody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


# Tables


def made(runs):
    for seed in range(runs):
        jobs.make(job(seed))
    return jobs.plan("toy", SimpleNamespace(runs=runs))


def test_tables_are_those_of_the_jobs_in_their_order(store):
    made(3)
    found = tables.tables("toy", SimpleNamespace(runs=3))
    assert found["bits"]["run"].tolist() == [0, 0, 1, 1, 2, 2]
    assert found["bits"]["job"].tolist() == ["s-0", "s-0", "s-1", "s-1", "s-2", "s-2"]
    assert len(COUNT) == 3  # nothing was made a second time


def test_a_committed_set_is_read_where_it_is_asked_for(store, monkeypatch):
    tables.write("toy", made(2), store / "tables" / "toy")
    monkeypatch.setenv("STUDY_TABLES", str(store / "tables"))
    found = tables.tables("toy", SimpleNamespace(runs=2))
    assert len(found["bits"]) == 4
    with pytest.raises(ValueError, match=r"other settings: the jobs s-2 differ.*STUDY_TABLES"):
        tables.tables("toy", SimpleNamespace(runs=3))


def test_a_committed_set_of_these_sources_and_settings_takes_the_place_of_jobs(store, monkeypatch):
    chosen = made(2)
    tables.write("toy", chosen, store / "kept" / "toy")
    monkeypatch.setattr(tables, "ROOT", store)
    monkeypatch.setattr(tables, "RECORD", "kept")
    monkeypatch.setenv("STUDY_JOBS", str(store / "none"))
    assert len(tables.tables("toy", SimpleNamespace(runs=2))["bits"]) == 4
    assert not (store / "none").exists()
    tables.write("toy", chosen, store / "copy" / "toy")
    assert jobs.read_set(store / "copy" / "toy")[1]["jobs"].keys() == {"s-0", "s-1"}
    assert tables.committed("toy", jobs.plan("toy", SimpleNamespace(runs=3))) is None
    for module in (jobs, verify):
        monkeypatch.setattr(module, "fingerprint", lambda chapter: "g")
    assert tables.committed("toy", jobs.plan("toy", SimpleNamespace(runs=2))) is None
    assert verify.verify(store / "kept" / "toy", 1) == []  # other sources that find the same
    assert tables.committed("toy", jobs.plan("toy", SimpleNamespace(runs=2)))


def test_a_set_without_all_its_jobs_is_not_written(store):
    chosen = made(2)
    with pytest.raises(FileNotFoundError, match="s-2"):
        tables.write("toy", [*chosen, job(2)], store / "tables")
    assert not (store / "tables").exists()


def test_the_manifest_names_the_commit_and_whether_sources_differ_from_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert tables.commit() == "unknown"
    (tmp_path / "ibcore").mkdir()
    (tmp_path / "ibcore" / "a.py").write_text("x = 1\n")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    head = tables.commit()
    assert len(head) == 40
    (tmp_path / "book.md").write_text("prose\n")
    assert tables.commit() == head
    (tmp_path / "ibcore" / "a.py").write_text("x = 2\n")
    assert tables.commit() == head + "+"


@pytest.mark.slow
def test_missing_jobs_are_made_in_parallel_and_a_failure_keeps_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_JOBS", str(tmp_path))
    monkeypatch.delenv("STUDY_TABLES", raising=False)
    tiny = {"source": "stand-in", "hidden": [3], "runs": 1, "epochs": 1, "snapshots": 1}
    chosen = settings.make("names", tiny | {"policy_snapshots": 1, "dtype": "float64"})
    found = tables.tables("names", chosen)
    assert set(found["scores"]["activation"]) == {"relu", "tanh"}
    bad = Job("names", "bad", {**jobs.plan("names", chosen)[0].arguments, "activation": "none"})
    good = Job("names", "good", jobs.plan("names", chosen)[1].arguments)
    with pytest.raises(RuntimeError, match="job bad of names failed"):
        tables.make_all([good, bad], cores=1)
    assert jobs.is_made(good)


# What a chapter depends on


def test_the_closure_holds_what_is_computed_and_nothing_that_is_drawn():
    found = {path.relative_to(ROOT).as_posix() for path in closure.sources("names")}
    computed = {"study/names.py", "study/measures.py", "ibcore/training.py", "ibcore/models.py"}
    assert computed | {"ibcore/estimators/pairwise.py", "ibcore/data/sha256sums.txt"} <= found
    drawn = {name for name in found if "plotting" in name or "claims" in name}
    machinery = {"study/jobs.py", "study/tables.py", "study/settings.py", "study/comparisons.py"}
    assert not (drawn | machinery & found)


@pytest.mark.slow  # nothing here hangs on a processor's kernels
@pytest.mark.parametrize("chapter", sorted(settings.CHAPTERS))
def test_the_closure_is_what_python_imports(chapter):
    code = (
        f"import sys, study.{chapter}\n"
        "print(*[m.__file__ for n, m in sys.modules.items()"
        " if n.split('.')[0] in ('ibcore', 'study') and getattr(m, '__file__', None)], sep='\\n')"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = {str(path) for path in closure.sources(chapter) if path.suffix == ".py"}
    assert found <= set(run.stdout.splitlines())  # ibcore's __init__ imports more than is asked for


def test_a_changed_source_is_another_fingerprint(tmp_path, monkeypatch):
    (tmp_path / "study").mkdir()
    (tmp_path / "constraints.txt").write_text("scikit-learn==1\ntorch==1\nzstandard==1\n")
    (tmp_path / "study" / "toy.py").write_text("import torch.nn\nfrom study import other\n")
    (tmp_path / "study" / "other.py").write_text("x = 1\n")
    (tmp_path / "study" / "alone.py").write_text("x = 1\n")
    monkeypatch.setattr(closure, "ROOT", tmp_path)

    def now():
        closure.fingerprint.cache_clear()
        return closure.fingerprint("toy")

    first = now()
    assert [path.name for path in closure.sources("toy")] == ["other.py", "toy.py"]
    (tmp_path / "study" / "alone.py").write_text("x = 2\n")
    assert now() == first
    (tmp_path / "study" / "other.py").write_text("x = 2\n")
    second = now()
    assert second != first
    (tmp_path / "constraints.txt").write_text("scikit-learn==1\ntorch==1\nzstandard==2\n")
    assert now() == second  # what is not imported doesn't count
    (tmp_path / "constraints.txt").write_text("scikit-learn==1\ntorch==2\nzstandard==2\n")
    third = now()
    assert third not in (first, second)
    (tmp_path / "study" / "other.py").write_text("x = 2\nfrom sklearn.metrics import auc\n")
    assert closure.pins("toy") == ["scikit-learn==1", "torch==2"]
    closure.fingerprint.cache_clear()


# Running again


def test_jobs_that_find_the_same_verify_and_are_stamped(store, capsys):
    folder = store / "tables" / "toy"
    tables.write("toy", made(3), folder)
    assert verify.verify(folder, 2) == []
    facts = jobs.read_set(folder)[1]
    assert facts["verified"]["jobs"] == verify.picked(facts, 2)
    assert facts["verified"]["largest"] == 0
    assert "off by 0 of the spread" in capsys.readouterr().out
    assert not verify.is_stale(folder)


def a_little_off(arguments):
    found = toy_run(arguments)
    found["bits"]["i_xz"] += 1e-12
    return found


def test_another_number_is_found_and_nothing_is_stamped(store, monkeypatch):
    folder = store / "tables" / "toy"
    tables.write("toy", made(3), folder)
    monkeypatch.setattr(settings.chapter_module("toy"), "run", a_little_off)
    (words,) = verify.verify(folder, 1)
    assert "column i_xz" in words
    assert "allowed 0" in words
    assert "verified" not in jobs.read_set(folder)[1]
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"kernels": "', '"kernels": "other '))
    assert verify.verify(folder, 1) == []  # on another processor the last digits may differ


def test_a_processor_of_another_model_is_another_kind(store, monkeypatch, tmp_path):
    listing = tmp_path / "cpuinfo"
    listing.write_text(
        "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\n"
        "model name\t: AMD EPYC\n\nprocessor\t: 1\nvendor_id\t: Other\n"
    )
    assert jobs.processor_model(listing) == "AuthenticAMD 25 17"
    assert jobs.processor_model(tmp_path / "none") == platform.processor()

    folder = store / "tables" / "toy"
    tables.write("toy", made(2), folder)
    monkeypatch.setattr(settings.chapter_module("toy"), "run", a_little_off)
    assert len(verify.verify(folder, 1)) == 1
    monkeypatch.setattr(jobs, "processor_model", lambda: "a model that no machine has")
    assert verify.verify(folder, 1) == []


def test_the_spread_is_that_over_seeds_and_not_over_layers(store):
    bits = pd.DataFrame({"run": [0, 0, 1, 1], "layer": 2 * ["a", "b"], "i_xz": [0, 9, 0.2, 9.2]})
    assert verify._spread(bits, "i_xz") == pytest.approx(0.1 * np.sqrt(2))
    assert np.isnan(verify._spread(bits[:2], "i_xz"))
    folder = store / "tables" / "toy"
    jobs.write_set(folder, {"bits": bits}, {"chapter": "toy"})
    found = pd.DataFrame(
        {"table": "bits", "column": "i_xz", "largest": 0.1, "typical": [0.1], "share": 1.0}
    )
    assert verify.over_spread(folder, found)[0] == pytest.approx(1 / np.sqrt(2))
    leap = found.assign(largest=0.9, typical=0.1)  # in one row of many
    assert verify.over_spread(folder, leap)[0] == pytest.approx(1 / np.sqrt(2))
    jobs.write_set(folder, {"bits": bits[:2]}, {"chapter": "toy"})
    # One seed: what is tolerated, twice.
    assert verify.over_spread(folder, found)[0] == verify.SHARE / verify.LONG


def test_which_jobs_run_again_is_chosen_by_the_sources(store, monkeypatch):
    folder = store / "tables" / "toy"
    tables.write("toy", made(12), folder)
    facts = jobs.read_set(folder)[1]
    picks = set()
    for sources in "abcdeghi":
        monkeypatch.setattr(verify, "fingerprint", lambda chapter, s=sources: s)
        picks.add(tuple(verify.picked(facts, 2)))
        assert verify.is_stale(folder)
    assert len(picks) > 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.assign(i_xz=[0.5, 0.7]), None),
        (lambda t: t.assign(i_xz=[0.5, np.nan]), None),
        (lambda t: t.assign(layer=["a", "c"]), "column 'layer'"),
        (lambda t: t.assign(run=[0, 1]), "column 'run'"),
        (lambda t: t.iloc[:1], "other columns or rows"),
        (lambda t: t.assign(more=0.0), "other columns or rows"),
    ],
)
def test_differences_are_numbers_and_the_rest_must_agree(change, words):
    old = pd.DataFrame({"run": 0, "layer": ["a", "b"], "i_xz": [0.5, 0.6]})
    if words:
        with pytest.raises(ValueError, match=words):
            verify.differences(change(old), old)
        return
    found = verify.differences(change(old), old).set_index("column").loc["i_xz"]
    assert found["share"] > 1
    assert verify.differences(old, old)["share"].max() == 0
    near = old.assign(i_xz=old["i_xz"] + 0.01)
    assert 0 < verify.differences(near, old)["share"].max() < 1


def test_what_is_searched_for_may_end_elsewhere_and_by_one_direction():
    old = pd.DataFrame({"rate": [4.0, 3.0], "i_xz": [3.9, 2.9], "directions": [3, 2]})
    near = old.assign(rate=[4.2, 3.0], i_xz=[4.1, 2.9], directions=[4, 2])
    assert verify.differences(near, old)["share"].max() <= 1
    for column, value in (("rate", 4.4), ("i_xz", 4.3), ("directions", 5)):
        far = near.assign(**{column: [value, old[column][1]]})
        assert verify.differences(far, old)["share"].max() > 1
    plain = old.drop(columns="rate").assign(estimator=["tolerated", "bins"])
    assert verify.differences(plain.assign(i_xz=[4.1, 2.9]), plain)["share"].max() <= 1
    assert verify.differences(plain.assign(i_xz=[3.9, 3.1]), plain)["share"].max() > 1


# Settings


@pytest.mark.parametrize(
    ("chapter", "values", "words"),
    [
        ("names", {"rnus": 5}, ["unknown parameter 'rnus'", "runs: int"]),
        ("names", {"runs": "five"}, ["runs is int, not 'five'"]),
        ("names", {"runs": True}, ["runs is int, not True"]),
        ("names", {"runs": 0}, ["runs must be above 0", "got 0"]),
        ("names", {"seed": -1}, ["seed must be from 0"]),
        ("names", {"seed": 2**64}, ["seed must be from 0 and below 2^62", str(2**64)]),
        ("names", {"learning_rate": "4e-4"}, ["learning_rate is float", "4.0e-4"]),
        ("names", {"learning_rate": float("nan")}, ["learning_rate must be above 0", "nan"]),
        ("names", {"hidden": []}, ["hidden is empty"]),
        ("names", {"hidden": [10**9]}, ["hidden", "weights"]),
        ("names", {"hidden": [90_000, 90_000]}, ["8,100,000,000 weights"]),
        ("names", {"hidden": [3, "4"]}, ["hidden is list[int]"]),
        ("names", {"dtype": "float16"}, ["dtype must be one of ('float32', 'float64')"]),
        ("names", {"source": "internet"}, ["source must be one of"]),
        ("cora", {"activation": "rleu"}, ["activation must be one of", "'relu'", "got 'rleu'"]),
        ("names", {"data": ""}, ["data must be one of the names that there are, got ''"]),
        ("names", {"others": ["Magic"]}, ["Magic"]),
        ("names", {"data": "cora"}, ['data must be "names"', "'cora'"]),
        ("names", {"train_fraction": 1.0}, ["train_fraction must be below 1"]),
        ("nmaes", {}, ["unknown chapter 'nmaes'", "names"]),
    ],
)
def test_a_setting_that_cant_be_is_named_with_what_would_do(chapter, values, words):
    started = time.perf_counter()
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the words are compared below
        settings.make(chapter, values)
    for word in words:
        assert word in str(caught.value)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("03_names: {runs: [", "is no YAML"),
        ("03_names: 5", "must map parameters to values"),
        ("- 03_names", "must map notebooks to parameters"),
        (b"\xff\xfe\x00", "is no YAML"),
    ],
)
def test_a_profile_that_is_none_is_named(tmp_path, text, words):
    path = tmp_path / "odd profile.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=words) as caught:
        settings.sections(path)
    assert "odd profile.yml" in str(caught.value)


def test_a_profile_that_is_missing_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match=r"known are \['smoke', 'thesis'\]"):
        settings.sections(settings.PROFILES / "somke.yml")


@pytest.mark.parametrize("chapter", sorted(settings.CHAPTERS))
@pytest.mark.parametrize("profile", ["smoke", "thesis"])
def test_every_profile_gives_settings_and_jobs_that_a_path_can_be_named_after(chapter, profile):
    chosen = settings.profile(chapter, settings.PROFILES / f"{profile}.yml")
    planned = jobs.plan(chapter, chosen)
    assert planned
    assert len({job.name for job in planned}) == len(planned)
    for job in planned:
        assert set(job.id) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-"), job.id


def test_any_source_is_the_original_where_it_is_at_hand(monkeypatch):
    chosen = settings.make("names", {"source": "any"})
    monkeypatch.setattr(settings, "load", lambda *given, **more: None)
    assert settings.resolved(chosen).source == "original"

    def missing(*given, **more):
        raise settings.DataUnavailableError("none")

    monkeypatch.setattr(settings, "load", missing)
    assert settings.resolved(chosen).source == "stand-in"
    assert settings.resolved(settings.make("names", {})).source == "original"


def test_a_command_line_is_answered_with_one_message(capsys, tmp_path):
    profile = tmp_path / "p.yml"
    profile.write_text("03_names: {runs: 0}")
    assert jobs.main(["names", "relu-0", "--profile", str(profile)]) == 1
    assert "runs must be above 0" in capsys.readouterr().err
    profile.write_text("03_names: {runs: 1}")
    assert jobs.main(["names", "relu-0-123", "--profile", str(profile)]) == 1
    assert "no job relu-0-123" in capsys.readouterr().err
    given = ["names", str(tmp_path / "t"), "--profile", str(profile)]
    os.environ["STUDY_JOBS"] = str(tmp_path)
    try:
        assert tables.main(given) == 1
    finally:
        del os.environ["STUDY_JOBS"]
    assert "no tables in" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["p.yml"]


def test_counts_of_bytes_may_be_near_and_are_no_keys_of_a_spread():
    old = pd.DataFrame(
        {"kind": ["a", "a"], "run": [1, 2], "bytes": [1000, 1100], "weight file": [2000, 2000]}
    )
    near = old.assign(bytes=[1015, 1100], **{"weight file": [2010, 2000]})
    assert 0 < verify.differences(near, old)["share"].max() < 1
    assert verify.differences(old.assign(bytes=[1100, 1100]), old)["share"].max() > 1
    with pytest.raises(ValueError, match="other values"):  # a count that was asked for is equal
        verify.differences(old.assign(run=[1, 3]), old)
    assert verify._spread(old, "bytes") == pytest.approx(100 / np.sqrt(2))
