"""Laws of chapter 01's jobs: what they depend on, and that blocks of seeds change no number."""

import dataclasses
import json
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from ibcore.data import load
from ibcore.ensemble import fit_ensemble
from ibcore.estimators import Binning, Pairwise
from ibcore.models import FullyConnected
from ibcore.plane import COLUMNS, KEYS
from ibcore.recorder import PlaneRecorder
from ibcore.settling import CHECKS
from ibcore.training import snapshot_epochs
from study.comparisons import chosen
from study.ledger import Ledger
from study.measures import VARIANCES, facts, float_type
from study.settings import make
from study.tishby import BLOCK, BOUND_BLOCK, EDGES, Settings, jobs, run

SHARES = ("planes", "gradients", "bounds")  # parts that train the networks of a share
PLANE = [*COLUMNS, "n_samples", "label_entropy"]
PROMISED = {
    "facts": ["share", "run", "ones"],
    "scores": ["run", "epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy"],
    "planes": [*PLANE, "share"],
    "checks": [*KEYS, *CHECKS, "share"],
    "gradients": ["run", "epoch", "weight", "mean_norm", "deviation_norm", "weight_norm"],
    "bounds": [*PLANE, "share"],
    "by_noise": ["run", "layer", "scale", "i_xz", "i_zy"],
    "by_bins": ["run", "layer", "scale", "i_xz"],
    "kinds": [*PLANE, "activation"],
    "others": [*PLANE, "share"],
}
counts = st.integers(1, 60)


def seeds_of(found, share, parts=SHARES):
    return [
        seed
        for job in found.values()
        if job["share"] == share and job["part"] in parts
        for seed in job["seeds"]
    ]


@given(runs=counts, bound_runs=counts, seed=st.integers(0, 100))
def test_every_seed_has_its_place_in_one_block_of_a_share(runs, bound_runs, seed):
    s = Settings(runs=runs, bound_runs=bound_runs, seed=seed, others=("Ksg",))
    found, seeds = jobs(s), list(range(seed, seed + runs))
    for share in s.fractions:  # a second job of one id would take the place of the first
        assert seeds_of(found, share) == seeds
        first = [j["seeds"][0] for j in found.values() if j["share"] == share and j.get("check")]
        assert first == [seed]
    assert seeds_of(found, s.fractions[-1], ("bounds",)) == seeds[:bound_runs]
    assert seeds_of(found, s.fractions[-1], ("kinds",)) == 2 * seeds[:bound_runs]
    assert seeds_of(found, s.fractions[-1], ("others",)) == [seed]
    for job in found.values():
        assert len(job["seeds"]) <= (BOUND_BLOCK if job["part"] == "bounds" else BLOCK)


@given(runs=counts, more=counts, bound_runs=counts)
def test_more_runs_remake_a_block_that_was_not_full_and_nothing_else(runs, more, bound_runs):
    old = jobs(Settings(runs=runs, bound_runs=bound_runs))
    new = jobs(Settings(runs=runs + more, bound_runs=bound_runs))
    for name, job in old.items():
        if new.get(name) != job:
            assert job["seeds"][-1] == runs - 1
            assert len(job["seeds"]) < (BOUND_BLOCK if job["part"] == "bounds" else BLOCK)


def test_a_job_has_a_name_for_a_folder_and_arguments_that_json_holds():
    found = jobs(Settings(fractions=(0.015, 0.45, 0.9999), others=("Ksg", "Renyi")))
    for name, job in found.items():
        assert re.fullmatch("[a-z0-9.-]+", name)
        text = json.dumps(job, allow_nan=False)
        assert json.dumps(json.loads(text), allow_nan=False) == text


EVERY = {"share", "tanh", "relu", "others"}  # jobs, by the first word of their names
CHANGED = {
    "widths": ((12, 4, 2), EVERY),
    "activation": ("sigmoid", {"share", "tanh", "sigmoid", "others"}),
    "fractions": ((0.05, 0.45, 0.8), EVERY),
    "runs": (51, {"share"}),
    "epochs": (9, EVERY),
    "learning_rate": (0.1, EVERY),
    "batch_size": (8, EVERY),
    "snapshots": (9, {"share", "tanh", "relu"}),
    "bin_edges": (9, {"share"}),
    "noise_variance": (0.2, {"share", "others"}),
    "bound_runs": (11, {"share", "tanh", "relu"}),
    "relu_bin_width": (0.1, {"tanh", "relu"}),
    "others": (("Renyi",), {"others"}),
    "other_snapshots": (9, {"others"}),
    "seed": (1, EVERY),
    "dtype": ("float64", EVERY),
}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Settings)][1:])
def test_a_setting_changes_the_jobs_that_depend_on_it_and_no_others(name):
    value, expected = CHANGED[name]
    default = Settings(others=("Ksg",))
    before, after = jobs(default), jobs(dataclasses.replace(default, **{name: value}))
    different = {n for n in {*before, *after} if before.get(n) != after.get(n)}
    assert {n.split("-")[0] for n in different} == expected


def test_what_the_bounds_need_stays_in_the_blocks_of_the_bounds():
    before, after = jobs(Settings()), jobs(Settings(noise_variance=0.2))
    assert {before[n]["part"] for n in before if before[n] != after[n]} == {"bounds"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"data": "mnist"}, "data must be \"tishby\".*'mnist'"),
        ({"widths": [12, 2]}, r"widths must run from 12 bits .* to 2 labels, got \[12, 2\]"),
        ({"widths": [11, 5, 2]}, r"widths .*\[11, 5, 2\]"),
        ({"widths": [12, 5, 3]}, r"widths .*\[12, 5, 3\]"),
        ({"activation": "relu"}, 'activation must be "tanh" or "sigmoid".*\'relu\''),
        ({"activation": "identity"}, "activation .*'identity'"),
        ({"fractions": [0.05, 0.45, 1.0]}, r"fractions .* below 1, got \[0.05, 0.45, 1.0\]"),
        ({"fractions": [0.0, 0.45, 0.85]}, "fractions must be above 0 .*got 0.0"),
        ({"fractions": [0.85, 0.45, 0.05]}, r"fractions .*\[0.85, 0.45, 0.05\]"),
        ({"fractions": [0.05, 0.051, 0.85]}, r"fractions .*\[0.05, 0.051, 0.85\]"),
        ({"fractions": [0.05, 0.85]}, r"fractions must be three shares .*\[0.05, 0.85\]"),
        ({"bin_edges": 1}, "bin_edges must be at least 2, got 1"),
        ({"bound_runs": 0}, "bound_runs must be above 0 .*got 0"),
        ({"others": ["Guess"]}, "no estimator is called .*Guess"),
        ({"dtype": "float16"}, "dtype must be one of .*'float16'"),
    ],
)
def test_settings_that_do_not_fit_are_named(values, words):
    with pytest.raises(ValueError, match=words):
        make("tishby", values)


def test_claims_name_the_shares_that_were_trained_on():
    claims = Ledger("tishby", Settings(fractions=(0.1, 0.2, 0.3)), "original").claims
    assert claims["overfit"].claim.startswith("10%: I(T;Y)")
    assert claims["compress"].claim.startswith("30%: I(X;T)")
    assert not claims["rise"].full
    assert Ledger("tishby", Settings(runs=60), "original").claims["rise"].full


# One small run, in float64: stacks of another size sum in another order, which after twenty steps
# has grown to some 1e-13. Bins that no activation comes that near to the edge of stay the same.
CLOSE = {"rtol": 1e-9, "atol": 1e-9}
SMALL = Settings(
    widths=(12, 4, 3, 2),
    runs=3,
    bound_runs=1,
    epochs=3,
    snapshots=2,
    batch_size=512,
    learning_rate=0.01,
    noise_variance=VARIANCES[6],
    others=("Renyi",),
    other_snapshots=1,
    dtype="float64",
)
DATA = load("tishby", dtype=float_type(SMALL.dtype))


@pytest.fixture(scope="module")
def made():
    """The tables of each job, by its name; arguments as JSON gives them back."""
    return {name: run(json.loads(json.dumps(job))) for name, job in jobs(SMALL).items()}


@pytest.fixture(scope="module")
def tables(made):
    """The tables of all jobs, one below the other."""
    names = {name for found in made.values() for name in found}
    return {
        name: pd.concat([found[name] for found in made.values() if name in found]) for name in names
    }


def direct(share, seeds, *recorders, activation="tanh"):
    """Train all seeds at once, as a user of the package would, and return the history."""

    def watch(snapshot):
        for recorder in recorders:
            recorder(snapshot)

    return fit_ensemble(
        lambda seed: FullyConnected(SMALL.widths, activation, seed=seed).double(),
        [DATA.split(share, seed) for seed in seeds],
        seeds=seeds,
        epochs=SMALL.epochs,
        learning_rate=SMALL.learning_rate,
        batch_size=SMALL.batch_size,
        snapshots=snapshot_epochs(SMALL.epochs, SMALL.snapshots),
        layers=f"{activation}*",
        on_snapshot=watch,
        progress=False,
    )


def agree(found, expected, by):
    """Whether two tables say the same of each key, whatever the order of the rows."""
    pair = [table[list(expected.columns)].set_index(by).sort_index() for table in (found, expected)]
    assert_frame_equal(*pair, **CLOSE)


@pytest.mark.slow
def test_the_tables_have_the_promised_columns(made, tables):
    assert set(tables) == set(PROMISED)
    for found in made.values():
        for name, table in found.items():
            if name == "facts":
                assert set(table) == {*facts(DATA).columns, *PROMISED[name]}
            else:
                extra = {"share"} if name in ("scores", "gradients") else set()
                assert set(table) == {*PROMISED[name], *extra}
            assert len(table)


@pytest.mark.slow
@pytest.mark.parametrize("share", SMALL.fractions)
def test_blocks_of_seeds_give_what_one_ensemble_of_all_gives(tables, share):
    binned = PlaneRecorder(DATA.y, Binning(SMALL.bin_edges))
    history = direct(share, range(3), binned)
    shared = {name: table for name, table in tables.items() if "share" in table}
    mine = {name: table[table["share"] == share] for name, table in shared.items()}
    agree(mine["scores"], history.table, ["run", "epoch"])
    agree(mine["planes"], binned.plane().table, KEYS)
    checks = mine["checks"][mine["checks"]["estimator"] == "Binning"]
    agree(checks, binned.plane().checks, KEYS)
    if share == SMALL.fractions[-1]:
        agree(mine["gradients"], history.gradients, ["run", "epoch", "weight"])
    else:
        assert mine["gradients"].empty
    assert (mine["facts"]["train"] == round(share * len(DATA.y))).all()
    assert (mine["facts"]["ones"] == int(DATA.y.sum())).all()


@pytest.mark.slow
def test_bounds_are_those_of_the_first_seeds_of_the_largest_share(tables):
    bounds = PlaneRecorder(DATA.y, Pairwise(SMALL.noise_variance))
    direct(SMALL.fractions[-1], range(1), bounds)
    agree(tables["bounds"], bounds.plane().table, KEYS)
    checks = tables["checks"][tables["checks"]["estimator"] != "Binning"]
    agree(checks, bounds.plane().checks, KEYS)


@pytest.mark.slow
def test_other_scales_go_through_the_points_of_the_planes(tables):
    at_end = {"epoch": SMALL.epochs, "run": SMALL.seed}
    bounds = chosen(tables["bounds"], estimator="BD", **at_end)
    planes = chosen(tables["planes"], share=SMALL.fractions[-1], **at_end)
    for name, scale, plane, all_scales in (
        ("by_noise", SMALL.noise_variance, bounds, VARIANCES),
        ("by_bins", SMALL.bin_edges, planes, EDGES),
    ):
        table = tables[name]
        agree(table[table["scale"] == scale], plane[["run", "layer", "i_xz"]], ["run", "layer"])
        for _, rows in table.groupby(["run", "layer"]):
            assert list(rows["scale"]) == all_scales


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tanh", "relu"])
def test_both_activations_are_binned_alike(tables, kind):
    record = PlaneRecorder(DATA.y, Binning(width=SMALL.relu_bin_width), check=False)
    direct(SMALL.fractions[-1], range(1), record, activation=kind)
    mine = tables["kinds"][tables["kinds"]["activation"] == kind]
    agree(mine, record.plane().table, KEYS)


@pytest.mark.slow
def test_other_estimators_look_at_one_network(tables):
    rows = tables["others"]
    assert set(rows["estimator"]) == {"Renyi"}
    assert set(rows["run"]) == {SMALL.seed}
    assert set(rows["epoch"]) == set(snapshot_epochs(SMALL.epochs, SMALL.other_snapshots))
    assert set(rows["layer"]) == {"tanh1", "tanh2"}
