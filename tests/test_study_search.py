"""Laws of the searches of chapter 08: kept, gone on with, refused; and of what is made of them."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ibcore.training import TrainingDivergedError
from study import hyperparameters, scratch, searched, settings
from study.jobs import Job, make
from study.ledger import read
from study.measures import stacked
from study.search import ORDINARY, STARTUP, search

TINY = hyperparameters.Settings(
    data=("tishby", "names"), objectives=("validation", "held back", "I(T;Y)"), source="stand-in",
    trials=3, epochs=1, searches=2, most=60, validation=20, course=4, runs=2, seed=5,
)  # fmt: skip


def measured(given):
    return {"depth_again": float(len(given["widths"])), "value": -given["learning_rate"]}


def found(tmp_path, trials=12, evaluate=measured, name="a", **more):
    given = {"sampler": "TPE", "seed": 3, "asked": "this", **more}
    return search(
        evaluate, lambda m: m["value"], trials=trials, journal=tmp_path / name, **given
    )  # fmt: skip


def test_a_search_that_was_cut_off_goes_on_to_the_same_end(tmp_path):
    whole = found(tmp_path)

    def dies(given):
        dies.left -= 1
        if dies.left == 0:
            raise KeyboardInterrupt
        return measured(given)

    dies.left = STARTUP + 3
    with pytest.raises(KeyboardInterrupt):
        found(tmp_path, evaluate=dies, name="b")
    with (tmp_path / "b").open("ab") as journal:
        journal.write(b'{"op_code": 4, "worker')  # as a full disk or a kill leaves it
    pd.testing.assert_frame_equal(found(tmp_path, name="b"), whole)
    assert (whole["width_1"] > 0).all()
    assert (whole["depth_again"] == (whole.filter(like="width_") > 0).sum(axis=1)).all()


def test_searches_begin_as_random_ones_do_and_then_go_by_the_objective(tmp_path):
    guided = found(tmp_path, trials=25)
    chance = found(tmp_path, trials=25, name="b", sampler="random")
    pd.testing.assert_frame_equal(guided[:STARTUP], chance[:STARTUP])
    assert guided["value"][STARTUP:].mean() > chance["value"][STARTUP:].mean()


def test_what_isn_t_searched_is_ordinary(tmp_path):
    rows = found(tmp_path, searched=("learning_rate",))
    assert rows["learning_rate"].nunique() == len(rows)
    assert (rows[["depth", "batch_size", "decay"]].drop_duplicates().to_dict("records")) == [
        {name: ORDINARY[name] for name in ("depth", "batch_size", "decay")}
    ]


def test_a_trial_that_diverges_is_kept_as_failed_and_the_search_goes_on(tmp_path):
    def some(given):
        if given["batch_size"] > 60:
            raise TrainingDivergedError("no longer finite")
        return measured(given)

    rows = found(tmp_path, evaluate=some)
    assert len(rows) == 12
    assert 0 < rows["failed"].sum() < 12
    assert (rows["value"].isna() == (rows["failed"] == 1)).all()
    pd.testing.assert_frame_equal(found(tmp_path, evaluate=some), rows)  # none is tried again


@pytest.mark.parametrize("more", [{"sampler": "grid"}, {"searched": ("dropout",)}])
def test_unknown_names_are_told_with_the_known(tmp_path, more):
    with pytest.raises(ValueError, match=r"TPE|learning_rate"):
        found(tmp_path, **more)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "held", [b"garbage\n", b"[1]\n", b'{"op_code": 99, "worker_id": "x"}\n', b"\x00\xff\n"]
)
def test_a_journal_of_another_version_is_refused_and_left_as_it_is(tmp_path, held):
    (tmp_path / "a").write_bytes(held)
    with pytest.raises(ValueError, match="no journal of a search that this version can read"):
        found(tmp_path)
    assert (tmp_path / "a").read_bytes() == held


def test_a_journal_of_another_search_is_refused(tmp_path):
    found(tmp_path, trials=1)
    held = (tmp_path / "a").read_bytes()
    with pytest.raises(ValueError, match="holds another search"):
        found(tmp_path, asked="that")
    assert (tmp_path / "a").read_bytes() == held


@pytest.fixture(scope="module")
def tables():
    planned = hyperparameters.jobs(TINY)
    assert len(planned) == 8
    return stacked(hyperparameters.run(a) for a in planned.values())


@pytest.mark.slow
def test_claims_are_filled_from_searches_and_trainings(tables):
    trials, courses = tables["trials"], tables["courses"]
    assert len(trials) == 2 * 2 * 4 * 3
    assert len(courses) == 2 * 2 * 2 * 4
    assert courses.notna().all(axis=None)
    known = searched.values(tables)
    left = {
        k for k in read("hyperparameters")[0] if k.endswith("-beside-loss") and k[:2] != "zy"
    } | {k for k in read("hyperparameters")[0] if k.startswith(("difference", "bound"))}
    assert set(known) == set(read("hyperparameters")[0]) - left
    assert all(len(series) == 2 for series in known.values())


@pytest.mark.slow
def test_trials_held_back_learn_from_fewer_samples_and_none_is_reported_on(tables):
    trials = tables["trials"].set_index("objective")
    first = trials[trials["number"] == 0].reset_index()
    alike = first.groupby(["data", "run"])["learning_rate"].nunique()
    assert (alike == 1).all()  # all searches begin with one trial, trained on all samples or fewer
    losses = first[first["objective"] != "held back"].groupby(["data", "run"])["train_loss"]
    assert (losses.nunique() == 1).all()
    assert (first.groupby(["data", "run"])["train_loss"].nunique() == 2).all()


@pytest.mark.slow
def test_a_job_goes_on_from_its_journals_and_leaves_none(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_JOBS", str(tmp_path))
    name, arguments = next(iter(hyperparameters.jobs(replace(TINY, searches=1)).items()))
    job = Job("hyperparameters", name, json.loads(json.dumps(arguments)))
    real = hyperparameters.measured

    def dies(*given):
        dies.left -= 1
        if dies.left == 0:
            raise KeyboardInterrupt
        return real(*given)

    dies.left = 6
    monkeypatch.setattr(hyperparameters, "measured", dies)
    with pytest.raises(KeyboardInterrupt):
        make(job)
    assert list(tmp_path.glob("*/.*.kept/*.journal"))
    dies.left = 1000
    folder = make(job)
    assert 1000 - dies.left < 3 + 3 + 3 * 2  # fewer networks than the whole job has
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]
    fresh = hyperparameters.run(job.arguments)["trials"]
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "trials.parquet"), fresh)


def test_two_runs_of_a_job_do_not_share_what_they_keep(tmp_path):
    folder = tmp_path / "kept"
    with scratch.offered(folder), scratch.kept() as first:
        with scratch.kept() as second:
            assert first == folder != second
            assert second.is_dir()
        with scratch.offered(folder):
            pass  # another run that is done leaves the folder of this one
        assert folder.is_dir()
    assert not folder.exists()
    assert not second.exists()
    with scratch.kept() as none_offered:
        assert none_offered.is_dir()
    with pytest.raises(OSError, match="full"), scratch.offered(folder), scratch.kept():
        raise OSError("full")
    assert folder.is_dir()  # for the next run


def trials_of(objective, accuracies, values, sampler="TPE"):
    return pd.DataFrame({
        "data": "a", "run": 0, "sampler": sampler, "objective": objective,
        "number": range(len(values)), "failed": np.isnan(values).astype(float),
        "test_accuracy": accuracies, "validation": values, "train_loss": [-v for v in values],
        "i_zy": values, "i_xz": values, "train_accuracy": 1.0, "bound": 0.0,
    })  # fmt: skip


def test_regret_is_what_the_chosen_trial_lacks():
    nan = math.nan
    trials = pd.concat([
        trials_of("validation", [nan, 0.5, 0.9, 0.7], [nan, 0.2, 0.1, 0.3]),
        trials_of("none", [0.6, 0.8, 1.0, 0.8], [0.3, 0.2, 0.1, 0.4], "random"),
    ])  # fmt: skip
    regret = searched.regrets(trials).set_index(["sampler", "objective"])["regret"]
    assert regret["TPE", "validation"].tolist()[1:] == pytest.approx([50, 50, 30])
    assert math.isnan(regret["TPE", "validation"].iloc[0])
    assert regret["random", "training loss"].tolist() == pytest.approx([40, 40, 40, 20])
    assert regret["random", searched.NOTHING].tolist() == pytest.approx([40, 30, 20, 20])
    assert ("random", "held back") not in regret.index


def test_objectives_stand_beside_one_another_once_with_corrected_intervals():
    rng = np.random.default_rng(0)
    columns = pd.MultiIndex.from_tuples(
        [("TPE", word) for word in hyperparameters.OBJECTIVES] + [("random", searched.NOTHING)]
    )
    index = pd.MultiIndex.from_product([["a"], range(10)], names=searched.KEYS)
    end = pd.DataFrame(rng.normal(10, 1, (10, len(columns))), index, columns)
    end["TPE", "I(T;Y)"] = end["TPE", "validation"] + 5 + rng.normal(0, 0.1, 10)
    rows = searched.beside(end)
    pairs = [frozenset(pair) for pair in zip(rows["objective"], rows["beside"], strict=True)]
    assert len(set(pairs)) == len(pairs) == 3 + 2 + 1 + 3 * 4
    row = rows.set_index(["objective", "beside"]).loc[("I(T;Y)", "validation")]
    assert row["low"] < 5 < row["high"] < 5.2
    assert row["p"] < 1e-9
    assert (rows["p"] > 0.05).sum() >= 10  # of the others, which are chance
    shown = searched.told(rows, ["objective", "beside"], "data")
    assert shown.loc[("I(T;Y)", "validation"), "a"].startswith("5.0 ± 0.1*")
    assert not shown.loc[("training loss", searched.NOTHING), "a"].endswith("*")


def test_rules_stop_where_they_say():
    assert searched.patient(np.array([0.1, 0.5, *[0.4] * 30])) == (2, 2 + searched.PATIENCE)
    assert searched.patient(np.arange(5.0)) == (5, 5)
    slow = 0.002 * np.arange(100)
    assert searched.patient(slow, 0.01)[0] > 90  # small gains add up
    for drift, epoch in (
        ([-1.0, 0.5, 0.1, -0.1, 0.3, -1.0], 4),
        ([-1.0, -2.0], 0),
        ([1.0, 2.0], 0),
    ):
        course = pd.DataFrame({"run": 0, "epoch": range(1, len(drift) + 1), "drift": drift})
        assert searched.turn(course) == epoch


def test_the_fixed_epoch_is_learned_on_other_data():
    rows = []
    for data, best in (("a", 2), ("b", 4)):
        for epoch in range(1, 6):
            right = 1 - abs(epoch - best) / 10
            rows.append({"data": data, "run": 0, "noisy": 0.0, "epoch": epoch, "drift": 1.0,
                         "test_accuracy": right, "validation": right, "i_xz": -abs(epoch - 3.0),
                         "i_zy": float(epoch), "train_loss": 1 / epoch,
                         "train_accuracy": right})  # fmt: skip
    stops = searched.stopped(pd.DataFrame(rows)).set_index(["data", "rule"])
    assert stops.loc[("a", searched.FIXED), "epoch"] == 4
    assert stops.loc[("b", searched.FIXED), "epoch"] == 2
    assert stops.loc[("a", searched.FIXED), "lost"] == pytest.approx(20)
    assert stops.loc[("a", "I(X;T) turns"), "epoch"] == 3
    assert stops.loc[("a", "gradients turn"), "used"] == 5
    assert stops.loc[("b", "validation"), "short"] == pytest.approx(0)
    alone = searched.stopped(pd.DataFrame(rows[:5]))
    assert searched.FIXED not in set(alone["rule"])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"data": ("moons",)}, "data has"),
        ({"objectives": ("test",)}, "objectives has"),
        ({"searched": ("dropout",)}, "searched has"),
        ({"noisy": (1.0,)}, "noisy are shares"),
    ],
)
def test_settings_that_can_t_be_are_named(values, words):
    with pytest.raises(ValueError, match=words):
        settings.make("hyperparameters", values)
