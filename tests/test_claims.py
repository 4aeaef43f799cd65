"""Laws of a claim: its verdict is a function of its values, and of nothing else."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibcore.claims import VERDICTS, Claim

numbers = st.floats(-1e6, 1e6)


def claim(*values, accepted=(1.0, 2.0), **more):
    return Claim("gap", "4.2", "a gap", 1.5, accepted, "read off the plot", values, **more)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((1.5,), "reproduced"),
        ((1.0,), "reproduced"),
        ((2.001,), "not reproduced"),
        ((0.999,), "not reproduced"),
        ((1.4, 1.5, 1.6), "reproduced"),
        ((1.0, 3.0), "partly"),
        ((2.0, 2.2), "partly"),
        ((0.5, 2.5), "partly"),
        ((3.0, 3.1), "not reproduced"),
        ((0.1, 0.2), "not reproduced"),
        ((), "not testable"),
    ],
)
def test_the_verdict_is_where_the_interval_of_the_mean_lies(values, verdict):
    assert claim(*values).verdict == verdict


@given(st.lists(numbers, max_size=6), numbers, st.floats(0, 1e6))
def test_every_claim_has_one_of_the_known_verdicts_and_it_is_the_rule(values, low, width):
    made = claim(*values, accepted=(low, low + width))
    assert made.verdict in VERDICTS
    if values:
        inside = [low <= end <= low + width for end in made.interval]
        assert (made.verdict == "reproduced") == all(inside)
        if any(inside) and not all(inside):
            assert made.verdict == "partly"
        if made.interval[0] > low + width or made.interval[1] < low:
            assert made.verdict == "not reproduced"


def test_more_seeds_sharpen_a_verdict():
    # Half of the seeds lie outside, and the mean is within by a third of their deviation.
    few, many = (claim(*(n * [0.8, 1.4])) for n in (2, 100))
    assert few.spread == pytest.approx(many.spread, rel=0.2)
    assert (few.verdict, many.verdict) == ("partly", "reproduced")


def test_the_interval_covers_the_mean_as_often_as_its_docstring_says():
    rng = np.random.default_rng(0)
    for seeds, least, most in ((3, 0.68, 0.80), (10, 0.85, 0.95)):
        held = [claim(*rng.normal(size=seeds)).interval for _ in range(300)]
        covered = np.mean([low <= 0 <= high for low, high in held])
        assert least < covered < most  # 300 trials: ± 0.05 at two standard errors


@given(st.lists(numbers, min_size=2, max_size=8))
def test_the_interval_is_the_same_each_time_and_holds_the_mean(values):
    low, high = claim(*values).interval
    assert (low, high) == claim(*values).interval
    slack = 1e-9 * max(map(abs, values))
    assert min(values) - slack <= low <= high <= max(values) + slack


def test_mean_spread_and_agreement_are_over_seeds():
    made = claim(1.0, 2.0, 4.0)
    assert made.measured == pytest.approx(7 / 3)
    assert made.spread == pytest.approx(math.sqrt(sum((v - 7 / 3) ** 2 for v in (1, 2, 4)) / 2))
    assert made.agreement == pytest.approx(2 / 3)
    assert claim(3.0).spread == 0
    assert claim(3.0).interval == (3.0, 3.0)
    assert math.isnan(claim().measured)
    assert math.isnan(claim().agreement)


def test_an_open_interval_has_one_edge():
    assert claim(-1e9, accepted=(-math.inf, 0.5)).verdict == "reproduced"
    assert claim(0.6, accepted=(-math.inf, 0.5)).verdict == "not reproduced"
    assert claim(1e9, accepted=(0.5, math.inf)).verdict == "reproduced"


@pytest.mark.parametrize("values", [(1.5,), (99.0,)])
def test_a_stand_in_proves_nothing_and_a_shorter_run_decides_nothing(values):
    assert claim(*values, source="synthetic digits").verdict == "stand-in"
    assert claim(*values, full=False).verdict == "reduced run"


def test_what_was_not_measured_is_not_testable_in_any_run():
    assert claim(source="synthetic digits", full=False).verdict == "not testable"


@pytest.mark.parametrize("accepted", [(2.0, 1.0), (math.nan, 1.0), (0.0, math.nan)])
def test_an_interval_that_runs_from_high_to_low_is_refused(accepted):
    with pytest.raises(ValueError, match="low to high"):
        claim(1.0, accepted=accepted)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused_with_the_key(value):
    with pytest.raises(ValueError, match="gap"):
        claim(1.0, value)


def test_a_claim_that_accepts_every_number_tests_nothing():
    everything = (-math.inf, math.inf)
    for more in ({}, {"full": False}, {"source": "synthetic digits"}):
        assert claim(1.0, accepted=everything, **more).verdict == "not testable"
    assert claim(1.0, accepted=everything).measured == 1.0


@pytest.mark.parametrize(
    ("sits", "verdict"),
    [
        ((True, True, True, True), "saturated"),
        ((True, True, False, False), "saturated"),
        ((True, False, False, False), "reproduced"),
        ((), "reproduced"),
    ],
)
def test_values_of_points_at_their_ceiling_decide_nothing(sits, verdict):
    assert claim(1.4, 1.5, 1.6, 1.5, saturated=sits).verdict == verdict


def test_saturated_has_an_entry_a_value():
    with pytest.raises(ValueError, match="each of 2 values, got 1"):
        claim(1.4, 1.5, saturated=(True,))


def test_a_theorem_decides_and_is_never_contradicted_in_silence():
    assert claim(1.0, 2.0, theorem=True).verdict == "theorem"
    with pytest.raises(ValueError, match="gap: a theorem rules out"):
        claim(1.0, 2.5, theorem=True)


def test_a_claim_that_is_badly_put_keeps_its_values_and_decides_nothing():
    kept = claim(1.5, 1.6, flaw="it can't fail", instead="better")
    assert (kept.verdict, kept.measured) == ("badly put", pytest.approx(1.55))
    assert claim(1.5, full=False, flaw="it can't fail").verdict == "reduced run"
