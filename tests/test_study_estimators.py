"""Laws of chapter 05: jobs that are asked for no more than they need, and tables as promised."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from ibcore.data import load
from ibcore.discrete import quantise
from ibcore.estimators import Binning, Exact, InfoNCE, Ksg, Mine, MonteCarlo, Noisy, Pairwise, Renyi
from ibcore.hooks import ActivationTracker
from ibcore.interface import apply
from ibcore.models import FullyConnected
from ibcore.plane import COLUMNS
from ibcore.settling import CHECKS
from ibcore.training import fit, snapshot_epochs
from ibcore.trials import contract
from ibcore.trials import flags as trial
from ibcore.trials.distributions import STANDARD
from study import comparisons, estimators, laws, noisy, settings, wide

# The same sums in the same order; only their share of threads may differ, by float64's last digits.
BITS = {"rtol": 0, "atol": 1e-9}
SAMPLES = 200  # of the 4096 inputs
MET = (STANDARD[2], STANDARD[-1])  # laws: one dimension, and twenty
TINY = {
    "promises": ["Exact", "Ksg"],
    "runs": 1,
    "sizes": [60],
    "law_steps": 2,
    "flag_runs": 1,
    "flag_estimators": ["Ksg", "InfoNCE"],
    "plane_runs": 1,
    "epochs": 3,
    "snapshots": 2,
    "steps": 2,
    "check": False,
    "noise_variance": 0.2,
    "variances": [0.2, 1.0],
    "bins": [5, 30],
    "quantised_bits": 3,
    "paths": 100,
    "source": "stand-in",
    "images": 60,
    "hard_epochs": 1,
    "mine_steps": 20,
    "seed": 5,
    "dtype": "float64",
}
FACTS = ["data", "source", "sha256", "shape", "samples", "train", "test", "classes"]
SCORES = ["run", "epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy"]
PROMISED = {
    "facts": [*FACTS, "label_entropy", "run"],
    "promises": ["law", "measured", "limit", "promised", "holds", "estimator"],
    "laws": ["estimator", "law", "size", "run", "i_ab", "truth"],
    "flags": ["estimator", "law", "size", "run", "bits", "truth", "uncertain", "at the floor",
              "unsettled"],
    "scores": SCORES,
    "planes": [*COLUMNS, "n_samples", "label_entropy"],
    "chains": ["construction", "layer", "i_xz", "i_zy", "run"],
    "scales": ["layer", "estimator", "scale", "i_xz", "run"],
    "seconds": ["estimator", "seconds"],
    "wide": ["layer", "side", "estimator", "i_xz", "i_xz_error", "data", "samples"],
    "printed": ["run", "step", "series", "i_xz", "data", "samples", "estimator"],
}  # fmt: skip


def planned(**values):
    return estimators.jobs(settings.make("estimators", values))


def few(*args, **options):
    """Return some of the 12-bit inputs, in the place of all."""
    ds = load(*args, **options)
    rows = torch.arange(0, len(ds.y), len(ds.y) // SAMPLES)[:SAMPLES]
    part = {"train": torch.arange(SAMPLES), "test": rows[:0]}
    return replace(ds, x=ds.x[rows], y=ds.y[rows], **part)


@pytest.fixture(scope="module")
def made():
    """The tables of every job of a tiny run, from arguments as JSON gives them back."""
    jobs = planned(**TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noisy, "load", few)
        patch.setattr(laws, "STANDARD", MET)
        return {name: estimators.run(json.loads(json.dumps(given))) for name, given in jobs.items()}


@pytest.fixture(scope="module")
def joined(made):
    names = {name for tables in made.values() for name in tables}
    return {
        name: pd.concat([t[name] for t in made.values() if name in t], ignore_index=True)
        for name in names
    }


@pytest.fixture(scope="module")
def network():
    """The network of the tiny run, trained by hand: the data, layers by epoch."""
    seed = TINY["seed"]
    ds = few("tishby", dtype=torch.float64).split(0.85, seed)
    model = FullyConnected([12, 10, 7, 5, 4, 3, 2], "tanh", seed=seed).to(ds.x.dtype)
    with ActivationTracker(model, "tanh*") as tracker:
        seen = fit(
            model,
            ds,
            epochs=TINY["epochs"],
            learning_rate=4e-4,
            batch_size=512,
            seed=seed,
            tracker=tracker,
            snapshots=snapshot_epochs(TINY["epochs"], TINY["snapshots"]),
            progress=False,
        ).snapshots
    return ds, model, {snapshot.epoch: snapshot.activations for snapshot in seen}


# Jobs


def kinds(found):
    return {re.sub(r"-\d+", "", name) for name in found}


def test_the_record_is_a_job_a_size_and_seed_a_network_and_critic_a_data_set():
    found = planned()
    counts = pd.Series([name.split("-")[0] for name in found]).value_counts().to_dict()
    assert counts == {
        "promises": 1 + 4,  # those that train nothing, and each critic
        "laws": 3 * 10,
        "flags": 3 * (1 + 2 * 2),  # of KSG, and of two critics at two sizes
        "plane": 2 * (1 + 4),
        "floors": 1 + 4,
        "last": 2,
        "first": 1,
        "wide": 3,
    }
    assert json.loads(json.dumps(found)).keys() == found.keys()
    assert len({json.dumps(given, sort_keys=True) for given in found.values()}) == len(found)
    assert all(re.fullmatch(r"[a-z0-9.-]+", name) for name in found)


@pytest.mark.parametrize(
    "more",
    [
        {"runs": 12},
        {"sizes": [500, 2000, 10000, 20000]},
        {"flag_runs": 4},
        {"flag_estimators": ["Ksg", "Mine", "InfoNCE"]},
        {"plane_runs": 3},
        {"promises": ["Ksg", "Mine", "InfoNCE"]},
    ],
    ids=str,
)
def test_more_of_something_keeps_the_jobs_that_were_there(more):
    asked = {"flag_estimators": ["Ksg", "Mine"], "promises": ["Ksg", "Mine"]}
    before, after = planned(**asked), planned(**asked | more)
    assert before.items() <= after.items()
    assert len(after) > len(before)


PLANES = {"plane-quick", "plane-mine", "plane-nwj", "plane-infonce", "plane-smile"}
FLOORS = {name.replace("plane", "floors") for name in PLANES}
CRITICS = (PLANES | FLOORS) - {"plane-quick", "floors-quick"}
NETWORKS = PLANES | FLOORS | {"last", "first-layer"}
WIDE = {"wide-cora", "wide-names", "wide-mnist"}


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"law_steps": 400}, {"laws", "flags-mine", "flags-infonce"}),
        ({"steps": 900}, CRITICS | {"first-layer"} | WIDE),
        ({"epochs": 9000}, NETWORKS),
        ({"noise_variance": 0.2}, NETWORKS),
        ({"snapshots": 5}, PLANES),
        ({"variances": [0.1]}, {"last"}),
        ({"bins": [30]}, {"last"}),
        ({"quantised_bits": 5}, {"last"}),
        ({"paths": 300}, {"last"}),
        ({"source": "stand-in"}, WIDE),
        ({"images": 3000}, WIDE),
        ({"hard_epochs": 70}, WIDE),
        ({"mine_steps": 4000}, {"first-layer"} | WIDE),
        ({"dtype": "float64"}, NETWORKS | WIDE),
    ],
    ids=lambda given: str(given) if isinstance(given, dict) else "",
)
def test_a_setting_moves_the_jobs_that_need_it_and_no_others(change, again):
    before, after = planned(), planned(**change)
    assert before.keys() == after.keys()
    assert kinds(name for name in before if before[name] != after[name]) == again


def test_floors_are_checked_of_the_first_network_alone():
    before, after = planned(check=False), planned(check=True)
    assert before.items() <= after.items()
    assert after.keys() - before.keys() == {f"{name}-0" for name in FLOORS}


@pytest.mark.parametrize(("asked", "jobs"), [(["Nwj"], ["nwj"]), (["Ksg", "Exact"], ["quick"])])
def test_promises_are_checked_of_those_that_were_asked_for(asked, jobs):
    found = {n: j["estimators"] for n, j in planned(promises=asked).items() if "promises" in n}
    assert list(found) == [f"promises-{name}" for name in jobs]
    assert sorted(name for names in found.values() for name in names) == sorted(asked)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"promises": ["Mime"]}, r"no estimator is called \['Mime'\].*'Mine'"),
        ({"flag_estimators": ["Mime"]}, r"no estimator is called \['Mime'\]"),
        ({"flag_estimators": ["Ksg", "Renyi"]}, "of Ksg, Mine, InfoNCE; got Renyi"),
        ({"flag_estimators": []}, "flag_estimators is empty"),
        ({"sizes": []}, "sizes is empty"),
        ({"variances": []}, "variances is empty"),
        ({"bins": []}, "bins is empty"),
        ({"sizes": [500, 39]}, "sizes must be at least 40, got 39"),
        ({"images": 20}, "images must be at least 40, got 20"),
        ({"paths": 2}, "paths must be at least 3, got 2"),
        ({"bins": [30, 1]}, "bins must be at least 2, got 1"),
        ({"mine_steps": 9}, "mine_steps must be at least 10, got 9"),
        ({"quantised_bits": 17}, "quantised_bits is at most 16, got 17"),
        ({"runs": 0}, "runs must be above 0"),
        ({"noise_variance": 0.0}, "noise_variance must be above 0"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_named(values, words):
    with pytest.raises(ValueError, match=words):
        settings.make("estimators", values)


def test_no_promises_are_all_of_them():
    found = [j["estimators"] for j in planned(promises=[]).values() if j["part"] == "promises"]
    assert [name for names in found for name in names] == list(contract.subjects())


# Tables


@pytest.mark.slow
def test_the_tables_have_the_promised_columns(joined):
    assert {name: sorted(table.columns) for name, table in joined.items()} == {
        name: sorted(columns) for name, columns in PROMISED.items()
    }


@pytest.mark.slow
def test_each_row_is_told_from_the_others(joined):
    keys = {
        "facts": ["data", "run"],
        "promises": ["estimator", "law"],
        "laws": ["estimator", "law", "size", "run"],
        "flags": ["estimator", "law", "size", "run"],
        "scores": ["run", "epoch"],
        "planes": ["run", "epoch", "layer", "estimator"],
        "chains": ["construction", "run", "layer"],
        "scales": ["estimator", "scale", "run", "layer"],
        "seconds": ["estimator"],
        "wide": ["data", "layer", "side", "estimator"],
        "printed": ["data", "run", "step", "series"],
    }
    for name, table in joined.items():
        assert not table.duplicated(keys[name]).any(), name


@pytest.mark.slow
def test_promises_are_those_of_the_contract(joined):
    found = joined["promises"]
    assert list(found["estimator"].unique()) == ["Exact", "Ksg"]
    direct = contract.check(contract.subjects()["Exact"])
    rows = found[found["estimator"] == "Exact"][direct.columns]
    pd.testing.assert_frame_equal(rows, direct, **BITS)


@pytest.mark.slow
def test_each_law_is_met_by_each_estimator_alone(joined):
    found = joined["laws"].set_index(["law", "estimator"])
    assert found.groupby("estimator")["truth"].agg(list).map(len).eq(len(MET)).all()
    direct = {
        "Mine": Mine(steps=2),
        "InfoNCE": InfoNCE(steps=2),
        "Ksg": Ksg(),
        "Renyi, α = 2": Renyi(),
        "Renyi, α = 1.01": Renyi(1.01),
    }
    for law in MET:
        a, b = law.sample(60, TINY["seed"])
        for name, estimator in direct.items():
            row = found.loc[law.name, name]
            assert row["truth"] == law.bits
            np.testing.assert_allclose(row["i_ab"], estimator.between(a, b).bits, **BITS)


@pytest.mark.slow
def test_eigenvalues_are_left_out_where_they_take_hours(monkeypatch):
    monkeypatch.setattr(laws, "STANDARD", STANDARD[:1])
    found = {
        size: set(estimators.run({"part": "laws", "size": size, "seed": 0, "steps": 1})["laws"]
                  ["estimator"])
        for size in (2000, 2001)
    }  # fmt: skip
    assert found[2000] - found[2001] == {"Renyi, α = 1.01"}


@pytest.mark.slow
def test_flags_are_those_of_the_trial(joined):
    direct = trial.measure({"Ksg": Ksg()}, [60], [TINY["seed"]])
    found = joined["flags"]
    rows = found[found["estimator"] == "Ksg"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, direct, **BITS)
    assert set(found["estimator"]) == {"Ksg", "InfoNCE"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "names"),
    [
        (Pairwise(0.2), ["BD", "KL"]),
        (MonteCarlo(0.2), ["MonteCarlo"]),
        (Binning(), ["Binning"]),
        (Noisy(Ksg(), 0.2), ["Ksg"]),
        (Noisy(Renyi(), 0.2), ["Renyi"]),
        (Noisy(Mine(steps=2), 0.2), ["Mine"]),
        (Noisy(InfoNCE(steps=2), 0.2), ["InfoNCE"]),
    ],
    ids=["Pairwise", "MonteCarlo", "Binning", "Ksg", "Renyi", "Mine", "InfoNCE"],
)
def test_planes_are_those_of_a_training_by_hand(joined, network, estimator, names):
    ds, _, layers = network
    found = joined["planes"].set_index(["epoch", "layer", "estimator"])
    for epoch, activations in layers.items():
        for layer in ("tanh1", "tanh5"):
            direct = apply(estimator, activations[layer], ds.y, ds.x)
            for name in names:
                values = found.loc[(epoch, layer, name), ["i_xz", "i_zy"]].astype(float)
                np.testing.assert_allclose(values, direct[name][:2], **BITS)


@pytest.mark.slow
def test_a_plane_has_every_layer_in_order_and_is_flagged_where_it_was_checked(made):
    jobs = planned(**TINY | {"check": True})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noisy, "load", few)
        checks = estimators.run(jobs["floors-nwj-5"])["checks"]
    assert list(checks.columns) == ["run", "epoch", "layer", "estimator", *CHECKS]
    assert set(checks["epoch"]) == {TINY["epochs"]}
    plane = comparisons.plane(made["plane-nwj-5"]["planes"], checks)
    assert plane.layers == [f"tanh{n}" for n in range(1, 6)]
    flags = plane.flags().set_index("flag")
    assert flags.loc[["at the floor", "unsettled"], "of"].tolist() == [5, 5]


@pytest.mark.slow
def test_a_quantised_network_is_counted_and_obeys_the_inequality(joined, network):
    ds, _, layers = network
    found = joined["chains"].set_index(["construction", "layer"])
    found = found.loc["quantised in the network, exact"]
    assert (found[["i_xz", "i_zy"]].diff().dropna() <= 1e-9).all(axis=None)  # rounding of a sum
    first = quantise(layers[TINY["epochs"]]["tanh1"], 3, -1.0, 1.0)
    direct = Exact()(first, ds.y)["Exact"]
    values = found.loc["tanh1", ["i_xz", "i_zy"]].astype(float)
    np.testing.assert_allclose(values, direct[:2], **BITS)


@pytest.mark.slow
def test_noise_that_is_passed_on_has_no_one_to_pass_it_to_the_first_layer(joined, network):
    ds, _, layers = network
    x, y = MonteCarlo(0.2, draws=16).estimates(layers[TINY["epochs"]]["tanh1"], ds.y)
    found = joined["chains"].set_index(["construction", "layer"])
    row = found.loc["noise at every layer, Monte Carlo", "tanh1"]
    # Two draws against sixteen: three times the error of the first is 3 √8 times that of the other.
    assert abs(row["i_xz"] - x.bits) <= 3 * math.sqrt(8) * x.error
    assert abs(row["i_zy"] - y.bits) <= 3 * math.sqrt(8) * y.error


@pytest.mark.slow
def test_scales_are_those_of_the_same_network(joined, network):
    ds, _, layers = network
    found = joined["scales"].set_index(["estimator", "layer", "scale"])["i_xz"].sort_index()
    plane = joined["planes"].set_index(["epoch", "estimator", "layer"])["i_xz"]
    for layer, z in layers[TINY["epochs"]].items():
        for name in ("BD", "KL", "Ksg"):
            at = plane[TINY["epochs"], name, layer]
            np.testing.assert_allclose(found[name, layer, 0.2], at, **BITS)
        for count in (5, 30):
            direct = Binning(count)(z, ds.y)["Binning"].i_xz
            np.testing.assert_allclose(found["Binning", layer, count], direct, **BITS)
        total = math.sqrt(float(z.var(0).sum()))
        direct = Renyi(width=0.3 * total).entropy(z).bits
        np.testing.assert_allclose(found["Renyi", layer, 0.3], direct, **BITS)
        assert found["MonteCarlo", layer].is_monotonic_decreasing  # more noise, less information


@pytest.mark.slow
def test_every_estimator_is_timed(joined):
    found = joined["seconds"].set_index("estimator")["seconds"]
    assert (found > 0).all()
    critics = {"Mine", "Nwj", "InfoNCE", "Smile"}
    others = {"BD and KL", "Binning", "MonteCarlo", "Renyi, α = 2", "Renyi, α = 1.01", "Ksg"}
    assert set(found.index) == {*critics, *others, "Renyi, by eigenvalues: one spectrum"}


@pytest.mark.slow
def test_facts_are_of_the_data_that_was_trained_on(joined):
    found = joined["facts"].set_index("data")
    assert list(found.index) == ["12-bit data", "Cora", "names", "MNIST"]
    assert found.loc["12-bit data", "train"] == round(0.85 * SAMPLES)
    assert found.loc["MNIST", ["train", "test"]].tolist() == [60, 300]


@pytest.mark.slow
def test_wide_inputs_have_a_truth_and_bounds(joined):
    found = joined["wide"]
    assert (found["samples"] == 60).all()
    sides = found.groupby(["estimator", "side"]).size().to_dict()
    bounds = {(name, side): 9 for name in ("Mine", "InfoNCE") for side in ("Z", "Z + ε")}
    assert sides == bounds | {("truth", "Z + ε"): 9}
    truth = found[found["estimator"] == "truth"]
    assert truth["i_xz"].between(0, math.log2(60)).all()
    most = InfoNCE().ceiling(60)
    assert (found.loc[found["estimator"] == "InfoNCE", "i_xz"] <= most).all()


@pytest.mark.slow
def test_the_truth_of_a_wide_layer_is_that_of_a_training_by_hand(joined):
    ds = load("names", source="stand-in", seed=5, dtype=torch.float64)
    model = FullyConnected([12 * 57, 200, 200, 200, 18], "relu", seed=5).to(ds.x.dtype)
    fit(model, ds, epochs=1, learning_rate=1e-3, batch_size=256, seed=5, progress=False)
    used = torch.randperm(len(ds.x), generator=torch.Generator().manual_seed(5))[:60]
    with ActivationTracker(model, "relu*") as tracker:
        z = tracker.collect(ds.x)["relu2"][used]
    variance = 0.01 * float(z.var(0).sum())
    direct = MonteCarlo(variance, draws=2).estimates(z, ds.y[used])[0]
    rows = joined["wide"].query("data == 'names' and layer == 'relu2'").set_index("estimator")
    np.testing.assert_allclose(rows.loc["truth", ["i_xz", "i_xz_error"]].tolist(), direct, **BITS)
    mine = Mine(steps=2).between(ds.x[used], z)
    plain = rows[rows["side"] == "Z"].loc["Mine", ["i_xz", "i_xz_error"]].tolist()
    np.testing.assert_allclose(plain, mine, **BITS)


@pytest.mark.slow
def test_mine_as_printed_is_looked_at_ten_times_for_three_seeds(joined):
    found = joined["printed"]
    assert (
        found.groupby(["data", "run", "series"])["step"]
        .agg(list)
        .map(lambda steps: steps == list(range(2, 21, 2)))
        .all()
    )
    assert set(found["run"]) == {5, 6, 7}
    assert found.groupby("data")["samples"].first().to_dict() == {
        "12-bit data": SAMPLES, "Cora": 60, "names": 60, "MNIST": 60,
    }  # fmt: skip


@pytest.mark.slow
def test_mine_as_printed_finds_one_bit():
    coin = (torch.arange(400) % 2).double()[:, None]
    found = wide.printed("coin", coin, coin, seed=0, steps=400)
    end = found[found["step"] == 400]
    # The pairs of the product come from one permutation of 200 samples: their share of equal ones
    # is off by some 1/√200 = 0.07, a tenth of a bit in log₂: two of these, and a tenth that is
    # still to be learned.
    np.testing.assert_allclose(end["i_xz"], 1.0, rtol=0, atol=0.3)


def test_mine_as_printed_does_not_hang_on_what_ran_before():
    x, z = torch.randn(2, 100, 3, generator=torch.Generator().manual_seed(0))
    both = wide.printed("a", x, z, seed=3, steps=10)
    torch.manual_seed(99)
    pd.testing.assert_frame_equal(both, wide.printed("a", x, z, seed=3, steps=10), **BITS)


@pytest.mark.slow
def test_mine_as_printed_learns_independent_samples_by_heart_and_no_others():
    x, z = torch.randn(2, 100, 50, generator=torch.Generator().manual_seed(0))
    found = wide.printed("independent", x, z, seed=0, steps=200)
    end = found[found["step"] == 200].groupby("series")["i_xz"].mean()
    # log₂ 50 = 5.6 bits are there to be learned by heart, and nothing to be learned.
    assert end["samples it learned from"] > 1 > end["other samples"]
