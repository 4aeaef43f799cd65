"""The verdicts of chapter 06: claims that can be read, statistics that find what was put there."""

import hashlib
import json
import math
import subprocess

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml

from pipeline import pages
from study import jobs, protocol, settings, statistics
from study.closure import ROOT
from study.protocol import Row
from study.statistics import NotTestable

EPOCHS = [1, 3, 10, 30, 100, 300]
RECORD = ROOT / "book" / "tables" / "black_box"


def tables(courses, arm="tanh", estimator="bins", label=None, layers=("a", "b")):
    """Return planes in which the last layer of each run takes a course, the first stays at 5."""
    rows = []
    for run, course in enumerate(courses):
        for epoch, bits in zip(EPOCHS, course, strict=True):
            for layer, value in zip(layers, (5.0, bits), strict=True):
                heard = bits if label is None else label
                rows.append((arm, run, epoch, layer, estimator, value, heard, math.inf, 4096))
    names = ["arm", "run", "epoch", "layer", "estimator", "i_xz", "i_zy", "ceiling", "n_samples"]
    return {"planes": pd.DataFrame(rows, columns=names)}


def noisy(course, seeds=12, size=0.01):
    draw = np.random.default_rng(1)
    return [np.array(course) + size * draw.standard_normal(len(course)) for _ in range(seeds)]


CLAIM = {
    "source": "somebody", "where": "there", "quote": "", "quantity": "a fall", "statistic": "fall",
    "accepted": [-math.inf, -0.2], "refuted_by": "none", "reason": "it can be seen",
    "arms": ["tanh"], "estimators": ["bins"],
}  # fmt: skip


def decided(t, **changes):
    (row,) = protocol.findings(t, {"claim": CLAIM | changes})
    return row


# The claims' file


def test_the_claims_can_be_read_and_each_statistic_has_one():
    claims, full = protocol.read()
    assert len(claims) > 30
    assert set(full) <= set(vars(settings.make("black_box", {})))
    assert all(entry["reason"] and entry["refuted_by"] for entry in claims.values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"statistic": "guess"}, "asks for the statistic 'guess'"),
        ({"accepted": [1, 0]}, "refutes nothing"),
        ({"accepted": ["-.inf", ".inf"]}, "refutes nothing"),
        ({"statistic": "breaks", "accepted": [0, 1]}, "refutes nothing"),
        ({"colour": "red"}, r"has \['colour'\] that are unknown"),
        ({"instead": "nowhere"}, "'nowhere', which is no claim"),
        ({}, "no claim uses the statistics"),
    ],
)
def test_a_claim_that_cant_be_is_named(tmp_path, change, words):
    entry = CLAIM | {"accepted": [-9, -0.2]} | change
    if entry["accepted"] == ["-.inf", ".inf"]:
        entry["accepted"] = [-math.inf, math.inf]
    path = tmp_path / "claims.yml"
    path.write_text(yaml.safe_dump({"full": {}, "claims": {"one": entry}}))
    with pytest.raises(ValueError, match=words):
        protocol.read(path)


def test_a_claim_that_lacks_something_is_named(tmp_path):
    entry = {name: value for name, value in CLAIM.items() if name != "reason"}
    path = tmp_path / "claims.yml"
    path.write_text(yaml.safe_dump({"full": {}, "claims": {"one": entry}}))
    with pytest.raises(ValueError, match=r"one lacks \['reason'\]"):
        protocol.read(path)
    with pytest.raises(ValueError, match="is missing"):
        protocol.read(tmp_path / "none.yml")


@pytest.mark.parametrize("claim", protocol.read()[0].items(), ids=lambda claim: claim[0])
def test_every_claim_names_arms_that_there_are(claim):
    known = {*settings.chapter_module("black_box").BITS, "planted"}
    known |= set(settings.chapter_module("black_box").OTHERS)
    for arm in claim[1]["arms"]:
        assert set(arm.replace("/", "+").split("+")) <= known


# Falls


def test_a_fall_is_found_and_a_rise_refutes_it():
    found = decided(tables(noisy([1, 2, 3, 3, 2.5, 2])))
    assert found.verdict == "supported"
    assert found.effect == pytest.approx(-1, abs=0.02)
    assert decided(tables(noisy([1, 2, 3, 3, 3.5, 4]))).verdict == "refuted"


def test_a_fall_that_is_too_small_to_matter_is_refuted_and_one_on_the_edge_is_undecided():
    assert decided(tables(noisy([1, 2, 3, 3, 3, 2.9]))).verdict == "refuted"
    assert decided(tables(noisy([1, 2, 3, 3, 3, 2.8], size=0.2))).verdict == "undecided"


def test_noise_alone_falls_by_nothing_from_the_peak_of_the_others():
    draw = np.random.default_rng(0)
    found = []
    for _ in range(200):
        t = tables(draw.standard_normal((10, len(EPOCHS))))
        found.append(statistics.fall(t, "tanh", "bins").mean())
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 4 * error
    own = tables(draw.standard_normal((10, len(EPOCHS))))["planes"]
    wide = own[own["layer"] == "b"].pivot(index="run", columns="epoch", values="i_xz")
    assert (wide.iloc[:, -1] - wide.max(axis=1)).mean() < -0.5  # a seed's own peak is no such start


def test_false_alarms_are_rare_from_the_others_peak_and_the_rule_from_a_seeds_own():
    t = tables(np.random.default_rng(3).standard_normal((10, len(EPOCHS))))
    alarms = protocol.false_alarms(t, "tanh", "bins", rounds=60)
    assert alarms["others"] < 0.2
    assert alarms["own"] > 0.9


def test_layers_that_sit_at_the_ceiling_are_saturated_and_say_nothing():
    t = tables([[12.0] * 5 + [11.5]] * 12)
    assert decided(t).verdict == "saturated"


@pytest.mark.parametrize("statistic", ["rise", "phases", "excess", "breaks", "epochs_after_peak"])
def test_whatever_reads_planes_says_nothing_at_their_ceiling(statistic):
    t = tables([[12.0] * 6] * 12)
    t["planes"]["i_xz"] = 12.0
    assert statistics.STATISTICS[statistic].layer is not None
    assert decided(t, statistic=statistic, accepted=[0.1, math.inf]).verdict == "saturated"


def test_the_least_gain_of_all_layers_is_read_at_their_ceiling_too():
    t = tables([[12.0] * 6] * 12, layers=("a",) * 2)
    t["planes"] = t["planes"].assign(i_xz=12.0).drop_duplicates(["run", "epoch", "layer"])
    found = decided(t, statistic="rise", accepted=[0, math.inf], options={"layer": "least"})
    assert found.verdict == "saturated"


def test_two_seeds_have_no_others_and_a_missing_arm_is_not_testable():
    assert decided(tables(noisy([1, 2, 3, 3, 2, 1], seeds=2))).verdict == "not testable"
    found = decided(tables(noisy([1, 2, 3, 3, 2, 1])), arms=["relu"])
    assert (found.verdict, found.why) == ("not testable", "relu has no planes by bins")
    assert decided({}, statistic="irrelevant").verdict == "not testable"


# Other statistics


@pytest.mark.parametrize(
    ("course", "turns"),
    [
        ([1, 2, 3, 4], 0),
        ([1, 2, 3, 2], 1),
        ([1, 3, 1, 3], 2),
        ([3, 2.9, 3, 2.9], 0),
        ([1, 2, 1.9, 3, 2.95, 1], 1),
        ([2, 2, 2, 2], 0),
        ([4, 3, 2, 3], 1),
    ],
)
def test_turns_are_counted_where_they_are_large_enough(course, turns):
    assert statistics.turns(np.array(course)) == turns


def test_most_epochs_counts_those_after_the_peak():
    t = tables(noisy([1, 2, 3, 2.5, 2, 1]))
    assert statistics.epochs_after_peak(t, "tanh", "bins").eq(1 - 10 / 300).all()
    flat = tables(noisy([1, 2, 3, 3, 3, 2.95]))
    assert statistics.epochs_after_peak(flat, "tanh", "bins").eq(0).all()


def test_a_fall_alone_keeps_the_label():
    t = tables(noisy([1, 2, 3, 3, 2.5, 2]), label=0.9)
    assert statistics.falls_alone(t, "tanh", "bins").eq(1).all()
    t = tables(noisy([1, 2, 3, 3, 2.5, 2]))  # the label's falls as well
    assert statistics.falls_alone(t, "tanh", "bins").eq(0).all()


def test_rescaling_moves_what_it_moves():
    t = tables(noisy([1, 2, 3, 3, 2.5, 2]))
    other = tables(noisy([1, 2, 3, 3, 3, 3]), estimator="bins ×4")
    t["planes"] = pd.concat([t["planes"], other["planes"]])
    assert statistics.rescaled(t, "tanh", "bins").mean() == pytest.approx(1, abs=0.03)
    rows = protocol.findings(t, {"claim": CLAIM | {"estimators": ["bins", "bins ×4"]}})
    assert [row.verdict for row in rows] == ["supported", "refuted"]
    table = protocol.frame(rows)
    assert table["turns"].all()
    assert protocol.summary(table).loc["claim", "verdict"] == "depends on the estimator"


def test_a_compression_goes_with_accuracy_where_it_does():
    ends = np.linspace(0, 2, 12)
    t = tables([[1, 2, 3, 3, 3, 3 - end] for end in ends])
    scores = {"arm": "tanh", "run": range(12), "epoch": 300, "train_accuracy": 1.0}
    t["scores"] = pd.DataFrame(scores | {"test_accuracy": 0.8 + ends / 20})
    assert statistics.goes_with(t, "tanh", "bins").mean() == pytest.approx(1)
    t["scores"]["test_accuracy"] = 0.8 - ends / 20
    assert statistics.goes_with(t, "tanh", "bins").mean() == pytest.approx(-1)
    pooled = statistics.goes_with(t, "tanh+tanh", "bins", pooled=True)
    assert len(pooled) == 24


def test_the_gradients_turn_is_compared_with_the_peak():
    t = tables(noisy([1, 2, 3, 2.5, 2, 1]))
    drift = [3.0, 3, 3, 0, 0, 0]
    rows = [("tanh", run, e, d) for run in range(12) for e, d in zip(EPOCHS, drift, strict=True)]
    t["gradients"] = pd.DataFrame(rows, columns=["arm", "run", "epoch", "drift"])
    found = statistics.turn_to_peak(t, "tanh", "bins")
    assert found.abs().max() <= math.log2(3) + 1e-9  # a look apart at most
    assert statistics.drift(t, "tanh", "gradients", "early").eq(9 / 5).all()
    assert statistics.drift(t, "tanh", "gradients", "late").eq(6 / 5).all()


def test_the_order_of_layers_is_compared_between_tolerances():
    rows = [
        ("tanh", 0, layer, tolerance, 4096, False, value)
        for tolerance, values in ((0.001, (3, 2, 1)), (0.01, (3, 2, 1)), (0.1, (1, 2, 3)))
        for layer, value in zip("abc", values, strict=True)
    ]
    names = ["kind", "run", "layer", "tolerance", "samples", "calibrated", "i_xz"]
    found = statistics.order_kept({"depends": pd.DataFrame(rows, columns=names)}, "tanh", "")
    assert found.loc[0] == pytest.approx(-1)
    with pytest.raises(NotTestable):
        statistics.order_kept({}, "tanh", "")


def test_clustering_is_read_from_the_peak_on_where_it_is_asked_for():
    t = tables(noisy([1, 2, 3, 2.5, 2, 1], size=0.001))
    within = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    rows = [
        ("tanh", run, epoch, "b", share)
        for run in range(12)
        for epoch, share in zip(EPOCHS, within, strict=True)
    ]
    t["clusters"] = pd.DataFrame(rows, columns=["arm", "run", "epoch", "layer", "within"])
    whole = statistics.clustering(t, "tanh", "bins")
    later = statistics.clustering(t, "tanh", "bins", part="late")
    assert later.eq(1).all()
    assert whole.mean() < 0.5


# Tests


def test_holms_rule_is_that_of_his_paper():
    found = protocol.holm([0.01, 0.04, math.nan, 0.03, 0.005])
    assert found[:2] == pytest.approx([0.03, 0.06])
    assert math.isnan(found[2])
    assert found[3:] == pytest.approx([0.06, 0.02])
    assert protocol.holm([0.9, 0.8]) == [1, 1]


def test_a_mean_has_to_pass_both_edges_to_be_inside_and_one_to_be_outside():
    values = [0.1, 0.2, 0.15, 0.12, 0.18]
    both = protocol.p_mean(values, (0.0, 0.3))
    assert both == max(protocol.p_mean(values, (0.0, 9.0)), protocol.p_mean(values, (-9.0, 0.3)))
    assert protocol.p_mean(values, (1.0, 2.0)) < 1e-4
    assert protocol.p_mean([0.5] * 6, (0.0, 1.0)) == 0.5**6
    assert protocol.p_mean([1.0] * 6, (0.0, 1.0)) == 1  # on the edge
    rounded = [0.0, 1e-16, -1e-16, 2e-16, 0.0, 0.0]
    assert protocol.p_mean(rounded, (-math.inf, -0.2)) == 0.5**6
    assert protocol.p_mean(rounded, (0.0, 9.0)) == 1


def test_an_edge_where_nothing_lies_beyond_is_not_tested():
    assert protocol.p_mean([1.0] * 6, (0.9, 1.0), (0.0, 1.0)) == 0.5**6
    assert protocol.p_mean([0.0] * 6, (0.0, 0.1), (0.0, math.inf)) == 0.5**6
    assert protocol.p_mean([1 + 1e-15] * 6, (0.9, 1.0), (0.0, 1.0)) == 0.5**6  # rounding
    values = [0.5, 0.52, 0.51, 0.49, 0.5]
    whole = protocol.p_mean(values, (0.9, 1.0))
    assert protocol.p_mean(values, (0.9, 1.0), (0.0, 1.0)) == pytest.approx(whole / 2)


def test_an_interval_does_not_pass_what_a_mean_can_be():
    values = (0.2, 1.9, 1.8, 0.3, 1.7)
    assert Row("k", "a", "e", (0.3, math.inf), values).interval[1] > 1
    assert Row("k", "a", "e", (0.3, math.inf), values, (-1, 1)).interval[1] == 1


def test_a_tests_false_alarms_are_those_of_its_level():
    draw = np.random.default_rng(0)
    ps = [protocol.p_mean(draw.standard_normal(8), (0.0, math.inf)) for _ in range(1000)]
    assert np.mean(np.array(ps) < 0.05) == pytest.approx(0.1, abs=0.03)  # a side each


def test_a_share_is_read_as_it_is_claimed():
    assert protocol.p_share([1] * 19 + [0], (0.9, 1)) < 1e-4
    assert protocol.p_share([1] * 10 + [0] * 10, (0.9, 1)) < 1e-4  # and refuted
    assert protocol.p_share([0] * 20, (0, 0.2)) < 1e-4
    share = Row("k", "a", "e", (0.9, 1), (1.0,) * 19 + (0.0,), shares=True, adjusted=0.001)
    assert share.verdict == "supported"
    assert share.interval[0] == pytest.approx(0.75, abs=0.01)  # Clopper and Pearson's


def test_a_claim_depends_on_what_tells_its_verdicts_apart():
    def rows(*verdicts):
        effects = {"supported": -1.0, "refuted": 1.0}
        return [
            Row("k", arm, name, (-math.inf, 0), (effects[v], effects[v]), adjusted=0.0)
            for (arm, name), v in zip(
                [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")], verdicts, strict=True
            )
        ]

    def whole(*verdicts):
        return protocol.summary(protocol.frame(rows(*verdicts))).loc["k", "verdict"]

    s, r = "supported", "refuted"
    assert whole(s, s, s, s) == s
    assert whole(s, r, s, r) == "depends on the estimator"
    assert whole(s, s, r, r) == "depends on the network"
    assert whole(s, r, r, s) == "depends on the estimator and network"


# The record


def recorded():
    path = ROOT / "book" / "notebooks" / "06_black_box.ipynb"
    if held := pages.judged(nbformat.read(path, as_version=4)):
        return path, held
    pytest.fail(f"{path} shows no verdicts")


def test_the_page_of_verdicts_is_that_of_the_record():
    page = (ROOT / "book" / "verdicts.md").read_text(encoding="utf-8")
    assert page == pages.verdicts([recorded()[0]])


@pytest.mark.slow  # nothing here hangs on a processor's kernels
def test_the_verdicts_of_the_record_are_those_of_its_tables():
    _, held = recorded()
    assert held["full"]
    assert held["source"] == "original"
    found = protocol.findings(jobs.read_set(RECORD)[0])
    table = protocol.frame(found)
    for row, said in zip(table.to_dict("records"), held["rows"], strict=True):
        assert (row["key"], row["arm"], row["estimator"]) == (
            said["key"], said["arm"], said["estimator"],
        )  # fmt: skip
        assert row["verdict"] == said["verdict"]
        assert row["n"] == said["n"]
        if row["n"]:
            assert row["effect"] == pytest.approx(said["effect"], abs=1e-5)
    whole = protocol.summary(table)["verdict"].to_dict()
    assert whole == held["claims"]


def test_tolerated_noise_was_measured_wherever_it_was_asked_for():
    found = jobs.read_set(RECORD)[0]["tolerated"]
    assert len(found) > 3000
    assert found.notna().all().all()


def git(*command):
    done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def test_the_claims_came_before_the_tables_and_are_those_of_their_manifest():
    file, table = "study/claims/black_box.yml", "book/tables/black_box/manifest.json"
    facts = json.loads((ROOT / table).read_text(encoding="utf-8"))
    of_run = git("show", f"{facts['commit']}:{file}")
    first = [git("log", "--diff-filter=A", "--format=%H", "--", path) for path in (file, table)]
    if git("rev-parse", "--is-shallow-repository") != b"false\n":
        pytest.skip("no history here")
    assert of_run is not None
    assert all(first)
    assert hashlib.sha256(of_run).hexdigest() == facts["claims"]
    claims, tables = (found.decode().split()[-1] for found in first)
    assert claims != tables
    assert git("merge-base", "--is-ancestor", claims, tables) is not None
    # What no claim says of itself: that it was added, or sharpened, after the run.
    before = yaml.safe_load(git("show", f"{claims}:{file}"))["claims"]
    for key, entry in protocol.read()[0].items():
        if "after the run" in entry["reason"]:
            assert key not in before
            continue
        for name in ("statistic", "accepted", "arms", "estimators", "options"):
            assert entry.get(name) == before[key].get(name), (key, name)
