"""Laws of signal and noise: eq. 3.9 by hand, the cumulative variant by hand, where they cross."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ibcore
from ibcore.snr import cumulative_signal_to_noise, signal_to_noise, turning_epoch


def rows(*values, run=0, epoch=1):
    """Gradient rows of one epoch: (mean_norm, deviation_norm, weight_norm) for each weight."""
    return [
        {"run": run, "epoch": epoch, "weight": f"weight{n}", "mean_norm": m, "deviation_norm": d,
         "weight_norm": w}
        for n, (m, d, w) in enumerate(values, 1)
    ]  # fmt: skip


def ratios(*values, run=0, weight="weight1"):
    """A ratio an epoch, at the epochs 1, 10, 100, ..."""
    epochs = 10 ** np.arange(len(values))
    return pd.DataFrame({"run": run, "weight": weight, "epoch": epochs, "ratio": values})


def test_mean_and_deviation_are_divided_by_the_norm_of_the_weight():
    found = signal_to_noise(pd.DataFrame(rows((6.0, 3.0, 2.0), (1.0, 8.0, 4.0))))
    assert found["mean"].tolist() == [3.0, 0.25]
    assert found["deviation"].tolist() == [1.5, 2.0]
    assert found["ratio"].tolist() == [2.0, 0.125]


def test_equation_3_9_of_gradients_by_hand():
    gradients = torch.randn(7, 5, 4, generator=torch.Generator().manual_seed(0)).double()
    model = torch.nn.Linear(4, 5, bias=False).double()
    with ibcore.GradientTracker(model) as tracker:
        for gradient in gradients:
            (model.weight * gradient).sum().backward()
        table = pd.DataFrame([{"run": 0, "epoch": 1, **r} for r in tracker.statistics()])
    found = signal_to_noise(table).iloc[0]
    g, weight = gradients.numpy(), np.linalg.norm(model.weight.detach().numpy())
    mean = sum(g) / len(g)
    deviation = np.sqrt(sum((one - mean) ** 2 for one in g) / len(g))
    assert found["mean"] == pytest.approx(np.linalg.norm(mean) / weight, rel=1e-12)
    assert found["deviation"] == pytest.approx(np.linalg.norm(deviation) / weight, rel=1e-12)


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_the_ratio_does_not_depend_on_the_weight_or_the_scale(mean, deviation, weight, factor):
    one = signal_to_noise(pd.DataFrame(rows((mean, deviation, weight))))
    two = signal_to_noise(pd.DataFrame(rows((factor * mean, factor * deviation, 1.0))))
    assert one.loc[0, "ratio"] == pytest.approx(two.loc[0, "ratio"], rel=1e-9)


def test_the_input_keeps_its_rows_and_columns():
    table = pd.DataFrame(rows((6.0, 3.0, 2.0)) + rows((4.0, 1.0, 2.0), epoch=2))
    before = table.copy()
    for function in (signal_to_noise, cumulative_signal_to_noise):
        found = function(table)
        pd.testing.assert_frame_equal(table, before)
        pd.testing.assert_frame_equal(found[before.columns], before)


def test_the_cumulative_variant_sums_from_the_first_weight_and_takes_the_root_of_the_noise():
    table = pd.DataFrame(rows((3.0, 9.0, 2.0), (1.0, 7.0, 5.0), (4.0, 9.0, 1.0)))
    found = cumulative_signal_to_noise(table)
    assert found["mean"].tolist() == [3.0, 4.0, 8.0]
    assert found["deviation"].tolist() == [3.0, 4.0, 5.0]
    assert found["ratio"].tolist() == [1.0, 1.0, 1.6]


def test_the_cumulative_sums_start_anew_in_each_epoch_and_run():
    table = pd.DataFrame(
        [row for run in (0, 1) for epoch in (1, 2)
         for row in rows((1.0 + run, 4.0, 1.0), (epoch, 5.0, 1.0), run=run, epoch=epoch)]
    )  # fmt: skip
    found = cumulative_signal_to_noise(table)
    assert found["mean"].tolist() == [1, 2, 1, 3, 2, 3, 2, 4]
    assert found["deviation"].tolist() == [2, 3, 2, 3, 2, 3, 2, 3]


def test_without_noise_the_ratio_is_infinite():
    table = pd.DataFrame(rows((2.0, 0.0, 1.0)))
    assert signal_to_noise(table).loc[0, "ratio"] == math.inf
    assert math.isnan(turning_epoch(signal_to_noise(table)).iloc[0])


@pytest.mark.parametrize(
    ("values", "epoch"),
    [
        ((3.0, 2.0, 0.5, 0.1), 100),
        ((3.0, 0.5, 2.0, 0.5, 0.4), 10),
        ((0.5, 3.0, 0.5), 100),
        ((1.0, 0.99), 10),
    ],
    ids=["once", "there and back", "up and down", "one is not below"],
)
def test_the_turning_epoch_is_the_first_fall_below_one(values, epoch):
    assert turning_epoch(ratios(*values)).loc[(0, "weight1")] == epoch


@pytest.mark.parametrize("values", [(2.0,), (0.5, 0.4), (0.5, 1.0), (3.0, 2.0)])
def test_without_a_fall_from_one_or_above_there_is_no_turning_epoch(values):
    assert math.isnan(turning_epoch(ratios(*values)).loc[(0, "weight1")])


def test_the_turning_epoch_does_not_depend_on_the_order_of_rows():
    table = ratios(3.0, 2.0, 0.5, 2.0).iloc[[2, 0, 3, 1]]
    assert turning_epoch(table).loc[(0, "weight1")] == 100


def test_each_run_and_weight_turns_for_itself():
    table = pd.concat(
        [ratios(2.0, 0.5), ratios(2.0, 2.0, 0.5, weight="weight2"), ratios(2.0, 2.0, run=1)]
    )
    found = turning_epoch(table)
    assert found.loc[(0, "weight1")] == 10
    assert found.loc[(0, "weight2")] == 100
    assert math.isnan(found.loc[(1, "weight1")])


@given(st.lists(st.floats(0, 3), min_size=1, max_size=6))
def test_before_the_turning_epoch_the_ratio_never_falls_below_one_once_it_was_above(values):
    table = ratios(*values)
    epoch = turning_epoch(table).iloc[0]
    before = table["epoch"] < (math.inf if math.isnan(epoch) else epoch)
    above = (table.loc[before, "ratio"] >= 1).tolist()
    assert above == sorted(above)
    if not math.isnan(epoch):
        assert above[-1]
        assert table.loc[table["epoch"] == epoch, "ratio"].item() < 1
