"""Laws of the trial of flags: what it counts is what was measured."""

import math

import pandas as pd
import pytest

from ibcore.estimators import Ksg
from ibcore.trials import distributions as laws
from ibcore.trials import flags


def test_flags_warn_of_many_dimensions_and_leave_few_alone():
    tried = [laws.gaussian(1, 0.75), laws.gaussian(20, laws.correlation_for(4.0, 20))]
    found = flags.measure({"Ksg": Ksg()}, [1000], [0, 1], tried)
    assert len(found) == 4
    few, many = (found[found["law"] == law.name] for law in tried)
    assert not few[["at the floor", "unsettled", "uncertain"]].any().any()
    assert many["unsettled"].all()
    rates = flags.rates(found).loc["Ksg"]
    assert (rates["wrong"] == 2).all()
    assert rates.loc["unsettled", ["of the wrong", "of the right"]].tolist() == [1.0, 0.0]


def test_rates_are_shares_of_the_wrong_and_of_the_right():
    table = pd.DataFrame(
        {"estimator": "a", "bits": [1.0, 1.0, 2.0, 1.2], "truth": 1.0,
         "uncertain": [True, False, False, False], "at the floor": False,
         "unsettled": [False, False, True, True]}
    )  # fmt: skip
    rates = flags.rates(table).loc["a"]
    assert rates["wrong"].tolist() == [1] * 4
    assert rates["of the wrong"].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert rates["of the right"].tolist() == pytest.approx([1 / 3, 0.0, 1 / 3, 2 / 3])
    assert math.isnan(flags.rates(table[:2]).loc[("a", "any"), "of the wrong"])
