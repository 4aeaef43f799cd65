"""Laws of what notebooks show: planes come back from their rows, comparisons are what they say."""

import numpy as np
import pandas as pd
import pytest
import torch

from ibcore.claims import Claim
from ibcore.estimators import Pairwise, distance_histogram
from ibcore.recorder import PlaneRecorder
from study import comparisons as show
from study import measures
from study.ledger import Ledger

LAYERS = ["relu2", "relu1"]  # not in the order of the alphabet


def plane(seeds=2, epochs=2, scale=1.0, samples=60):
    recorder = PlaneRecorder(torch.arange(samples) % 3, {"σ² = 0.1": Pairwise(0.1)})
    for seed in range(seeds):
        for epoch in range(1, epochs + 1):
            generator = torch.Generator().manual_seed(seed)
            z = torch.randn(samples, 2, generator=generator, dtype=torch.float64) * epoch * scale
            recorder((seed, epoch, {LAYERS[0]: z, LAYERS[1]: z[:, :1]}))
    return recorder.plane()


def scores(gain=0.0, seeds=3):
    return pd.DataFrame(
        {"run": r, "epoch": e, "train_accuracy": 0.9, "test_accuracy": 0.5 + 0.1 * r + gain,
         "train_loss": 1.0, "test_loss": 2.0}
        for r in range(seeds) for e in (1, 4)
    )  # fmt: skip


def test_a_plane_comes_back_from_its_rows():
    one, two = plane(), plane(scale=0.1)
    rows = pd.concat([measures.plane_rows(p, network=n) for n, p in (("A", one), ("B", two))])
    checks = pd.concat([measures.check_rows(p, network=n) for n, p in (("A", one), ("B", two))])
    back = show.plane(rows, checks, network="B")
    pd.testing.assert_frame_equal(back.table, two.table)
    assert back.layers == LAYERS
    assert back.ceiling == two.ceiling
    pd.testing.assert_frame_equal(back.flags(), two.flags())
    assert list(show.planes(rows, by="network")) == ["A", "B"]
    with pytest.raises(ValueError, match=r"no rows where .*'C'.*\['A', 'B'\]"):
        show.plane(rows, network="C")


def test_ends_are_the_last_epoch_of_each_group():
    table = pd.concat([scores().assign(network="A"), scores().assign(network="B", epoch=2)])
    found = show.ends(table)
    assert found.groupby("network")["epoch"].unique().map(list).to_dict() == {"A": [4], "B": [2]}
    shown = show.mean_and_spread(found, by="network")
    assert shown.loc["A", ("test_accuracy", "mean")] == 0.6
    assert shown.loc["A", ("test_accuracy", "std")] == 0.1


def test_sides_and_their_difference_in_units_of_the_spread():
    found = plane(seeds=3)
    sides = {
        name: show.side(show.ends(scores(gain), by="run"), found, ["σ² = 0.1"])
        for name, gain in (("A", 0.0), ("B", 0.3))
    }
    both = show.compare(sides)
    assert both.loc["test accuracy", "difference"] == pytest.approx(0.3)
    assert both.loc["test accuracy", "in deviations"] == pytest.approx(3.0)
    assert both.loc["I(X;T), last layer, σ² = 0.1", "difference"] == 0
    last = found.last("σ² = 0.1 BD")["i_xz"]
    expected = (last["relu1"] - last["relu2"]).mean()
    assert both.loc["I(X;T), last − first layer, σ² = 0.1", "A"] == pytest.approx(expected)


def test_broken_pairs_and_flags_are_those_of_the_planes():
    planes = {"A": plane(), "B": plane(scale=1e3)}
    table = show.broken_pairs(planes)
    counts = planes["A"].violations().query("estimator == 'σ² = 0.1 BD'")
    assert table.loc[("A", "σ² = 0.1"), ("DPI, X", "mean")] == counts["DPI, X"].mean()
    flags = show.flag_counts(planes)
    held = planes["B"].flags().set_index(["estimator", "flag"])["count"]
    assert flags.loc[("B", "σ² = 0.1 BD"), "saturated"] == held["σ² = 0.1 BD", "saturated"] > 0


def test_a_histogram_comes_back_from_its_rows():
    z = torch.linspace(0, 1, 30, dtype=torch.float64)[:, None] ** 2
    rows = pd.concat([measures.histogram_rows(z * n, layer=f"l{n}") for n in (2, 1)])
    found = show.histograms(rows)
    assert list(found) == ["l2", "l1"]
    for expected, given in zip(distance_histogram(z), found["l1"], strict=True):
        np.testing.assert_array_equal(given, expected)


def test_a_stand_in_is_noted_and_data_is_described(capsys):
    facts = pd.DataFrame([{"data": "names", "source": "letters", "sha256": "ab" * 32, "samples": 8,
                           "shape": "8 × 2", "train": 6, "test": 2, "classes": 2,
                           "label_entropy": 1.0}])  # fmt: skip
    assert show.note(facts) == "stand-in data: letters"
    assert show.note(facts.assign(source="original")) == ""
    show.describe(facts)
    printed = capsys.readouterr().out
    for words in ("names, source: letters", "x 8 × 2, 2 classes", "6 samples to train on, 2 to",
                  "H(Y) = 1.000 bits, log2 N = 3.00 bits"):  # fmt: skip
        assert words in printed


def test_numbers_are_told_by_name(monkeypatch):
    told = {}
    monkeypatch.setattr(show, "glue", lambda name, text, display: told.update({name: text}))
    show.tell("a", -0.001)
    show.tell("b", 1.26, 1)
    show.tell("c", "3 of 4")
    show.tell("d", np.float64("nan"))
    assert told == {"a": "0.00", "b": "1.3", "c": "3 of 4", "d": "–"}
    show.tell_scores(show.ends(scores().assign(network="A")))
    assert (told["A test"], told["A test spread"], told["A train"]) == ("0.60", "0.10", "0.90")
    show.tell_broken_pairs(show.broken_pairs({"A": plane()}))
    assert told["A, σ² = 0.1, DPI X"].endswith(" of 2")
    show.tell_sides(pd.DataFrame({"difference": [0.5], "in deviations": [-2.04]}, index=["gap"]))
    assert (told["gap difference"], told["gap deviations"]) == ("0.50", "2.0")


def test_claims_are_told_by_their_keys(monkeypatch):
    told = {}
    monkeypatch.setattr(show, "glue", lambda name, text, display: told.update({name: text}))
    from study import settings

    chosen = settings.make("names", {})
    ledger = Ledger("names", chosen, "original")
    ledger.fill("gain", [0.1, 0.2, 0.3])
    show.tell_claims(ledger)
    assert (told["gain"], told["gain-std"], told["gain-low"]) == ("0.20", "0.10", "0.10")
    assert (told["gain-verdict"], told["gain-other-verdict"]) == ("reproduced", "not testable")


def test_since_starts_at_the_first_look_from_an_epoch_on():
    found = plane(seeds=3, epochs=4)
    rows = found.select("σ² = 0.1 BD").query("layer == 'relu1'").set_index(["run", "epoch"])["i_xz"]
    starts = pd.Series({0: 2, 1: 4, 2: 1.5})  # the second has nothing after its start
    change = show.since(found, "σ² = 0.1 BD", "relu1", "i_xz", starts)
    assert change.to_dict() == pytest.approx(
        {0: rows[0, 4] - rows[0, 2], 2: rows[2, 4] - rows[2, 2]}
    )
    every = show.since(found, "σ² = 0.1 BD", "relu1", "i_xz", 3)
    assert every.to_dict() == pytest.approx({r: rows[r, 4] - rows[r, 3] for r in range(3)})
    assert show.since(found, "σ² = 0.1 BD", "relu1", "i_xz", pd.Series(dtype=float)).empty


def test_a_run_has_learned_at_its_first_epoch_above_the_share():
    rows = [(0, 1, 0.5), (0, 2, 0.97), (0, 3, 0.9), (1, 1, 0.2), (1, 2, 0.3), (2, 1, 0.95)]
    table = pd.DataFrame(rows, columns=["run", "epoch", "train_accuracy"])
    assert show.learned(table).to_dict() == {0: 2, 2: 1}
    assert show.learned(table, 0.3).to_dict() == {0: 1, 1: 2, 2: 1}


def test_points_sit_at_the_ceiling_at_the_end_or_over_the_course():
    far = plane(epochs=3, scale=1e4)
    assert show.saturated(far, "σ² = 0.1 BD").to_dict() == {0: True, 1: True}
    assert show.saturated(far, "σ² = 0.1 BD", course=True).all()
    near = plane(epochs=3, scale=0.01)
    assert not show.saturated(near, "σ² = 0.1 BD", ["relu1"]).any()
    mixed = plane(epochs=3)
    mixed.table.loc[mixed.table["layer"] == "relu1", "i_xz"] = mixed.ceiling
    mixed.table.loc[mixed.table["layer"] == "relu2", "i_xz"] = 1.0
    assert show.saturated(mixed, "σ² = 0.1 BD", ["relu1"]).all()
    assert not show.saturated(mixed, "σ² = 0.1 BD").any()  # at the end all points must sit there
    assert show.saturated(mixed, "σ² = 0.1 BD", course=True).all()  # half of them do


def test_by_noise_takes_the_first_layer_off_the_last():
    y = torch.arange(60) % 3
    generator = torch.Generator().manual_seed(0)
    layers = {k: torch.randn(60, 2, generator=generator, dtype=torch.float64) for k in LAYERS}
    rows = measures.noise_rows(layers, y, network="A", run=4)
    found = show.by_noise(rows, LAYERS)
    assert list(found.columns) == measures.VARIANCES
    for variance in measures.VARIANCES:
        first, last = (Pairwise(variance)(layers[k], y)["BD"].i_xz for k in LAYERS)
        assert found.loc[4, variance] == pytest.approx(last - first)


def test_rank_products_have_the_rank_correlation_for_their_mean():
    a = pd.Series({0: 3.0, 1: 1.0, 2: 2.0, 3: 7.0, 5: 1.0})
    b = pd.Series({1: 0.2, 0: 0.1, 3: 0.9, 2: 0.4, 4: 0.0})
    runs = [0, 1, 2, 3]
    expected = a[runs].corr(b[runs], "spearman")
    assert show.rank_products(a, b).mean() == pytest.approx(expected)
    assert list(show.rank_products(a, b).index) == runs
    assert show.rank_products(a, pd.Series(1.0, index=a.index)).empty


def test_a_verdict_under_each_noise_is_that_of_its_values_there():
    claim = Claim("up", "5.3", "last above first", "above", (0.05, np.inf), "seen")
    rows = [(run, layer, scale, bits) for run in (0, 1) for layer, scale, bits in (
        ("a", 0.1, 1.0), ("b", 0.1, 2.0), ("a", 1.0, 3.0), ("b", 1.0, 2.0),
        ("a", 0.01, 10.0), ("b", 0.01, 10.0))]  # fmt: skip
    table = pd.DataFrame(rows, columns=["run", "layer", "scale", "i_xz"])
    found = show.verdicts_by_noise({"up": (claim, table, ["a", "b"])}, samples=1024)
    assert found.loc["up"].to_dict() == {
        "0.01": "saturated", "0.1": "reproduced", "1": "not reproduced"
    }  # fmt: skip
