"""Laws of the ledger: a verdict follows from the values, and the three forms say the same."""

import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibcore.claims import MIME, VERDICTS, Claim, Ledger

numbers = st.floats(-1e6, 1e6)


def claim(*values, accepted=(1.0, 2.0), **more):
    return Claim("4.2", "a gap", 1.5, accepted, "read off the plot", values, **more)


def ledger(**more):
    made = Ledger(**more)
    made.add("4.1", "gap of the bounds", "shrinks", (-math.inf, 0.5), "a plot", [0.1, 0.2, 0.3])
    made.add("4.2", "accuracy", 0.97, (0.95, 0.99), "text", [0.961], unit="share")
    made.add("4.3", "another group's plane", "a plane", (-math.inf, math.inf), "no number", [])
    return made


class Cells(HTMLParser):
    """The text of each cell, row by row, and the names of the tags."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.tags, self._open = [], set(), False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._open = True

    def handle_endtag(self, tag):
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data):
        if self._open:
            self.rows[-1][-1] += data


# Verdicts


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((1.5,), "reproduced"),
        ((1.0,), "reproduced"),
        ((2.0,), "reproduced"),
        ((2.001,), "not reproduced"),
        ((0.999,), "not reproduced"),
        ((1.4, 1.5, 1.6), "reproduced"),
        ((1.0, 3.0), "partly"),
        ((1.9, 2.0), "partly"),
        ((2.0, 2.2), "partly"),
        ((0.5, 2.5), "partly"),
        ((3.0, 3.1), "not reproduced"),
        ((0.1, 0.2), "not reproduced"),
        ((), "not testable"),
    ],
)
def test_the_verdict_is_where_mean_and_spread_lie(values, verdict):
    assert claim(*values).verdict == verdict


@given(st.lists(numbers, max_size=6), numbers, st.floats(0, 1e6))
def test_every_claim_has_one_of_the_known_verdicts_and_it_is_the_rule(values, low, width):
    made = claim(*values, accepted=(low, low + width))
    assert made.verdict in VERDICTS
    if values:
        spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
        ends = np.mean(values) - spread, np.mean(values) + spread
        inside = [low <= end <= low + width for end in ends]
        assert (made.verdict == "reproduced") == all(inside)
        if any(inside) and not all(inside):
            assert made.verdict == "partly"
        if ends[0] > low + width or ends[1] < low:
            assert made.verdict == "not reproduced"


def test_an_open_interval_has_one_edge():
    assert claim(-1e9, accepted=(-math.inf, 0.5)).verdict == "reproduced"
    assert claim(0.6, accepted=(-math.inf, 0.5)).verdict == "not reproduced"
    assert claim(1e9, accepted=(0.5, math.inf)).verdict == "reproduced"


def test_mean_and_spread_are_over_seeds():
    made = claim(1.0, 2.0, 4.0)
    assert made.measured == pytest.approx(7 / 3)
    assert made.spread == pytest.approx(math.sqrt(sum((v - 7 / 3) ** 2 for v in (1, 2, 4)) / 2))
    assert claim(3.0).spread == 0
    assert math.isnan(claim().measured)


@pytest.mark.parametrize("values", [(1.5,), (99.0,)])
def test_a_stand_in_proves_nothing(values):
    assert claim(*values, source="synthetic digits").verdict == "stand-in"


@pytest.mark.parametrize("values", [(1.5,), (99.0,)])
def test_a_shorter_run_decides_nothing(values):
    assert claim(*values, full=False).verdict == "reduced run"


def test_what_was_not_measured_is_not_testable_in_any_run():
    assert claim(source="synthetic digits", full=False).verdict == "not testable"


@pytest.mark.parametrize("accepted", [(2.0, 1.0), (math.nan, 1.0), (0.0, math.nan)])
def test_an_interval_that_runs_from_high_to_low_is_refused(accepted):
    with pytest.raises(ValueError, match="low to high"):
        claim(1.0, accepted=accepted)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused_with_the_claim(value):
    with pytest.raises(ValueError, match="a gap"):
        claim(1.0, value)
    made = ledger()
    with pytest.raises(ValueError, match="finite"):
        made.add("4.2", "a gap", 1.0, (0.0, 1.0), "text", [value])
    assert len(made.claims) == 3


# The ledger


def test_a_ledger_passes_its_source_and_length_to_every_claim():
    made = ledger(source="synthetic digits", full=False)
    assert {c.source for c in made.claims} == {"synthetic digits"}
    verdicts = [row["verdict"] for row in made.rows()]
    assert verdicts == ["stand-in", "stand-in", "not testable"]
    assert [row["verdict"] for row in ledger(full=False).rows()][:2] == 2 * ["reduced run"]


def test_a_row_says_all_that_the_figure_index_needs():
    row = ledger().rows()[0]
    assert row["figure"] == "4.1"
    assert row["claim"] == "gap of the bounds"
    assert row["published"] == "shrinks"
    assert (row["measured"], row["spread"], row["n"]) == ("0.20", "0.10", 3)
    assert (row["tolerance"], row["reason"]) == ("≤ 0.5", "a plot")
    assert (row["verdict"], row["source"]) == ("reproduced", "original")


@pytest.mark.parametrize(
    ("accepted", "shown"),
    [((0, 1), "0 to 1"), ((-math.inf, 0), "≤ 0"), ((0, math.inf), "≥ 0"),
     ((-0.5, 0.25), "-0.5 to 0.25"), ((-math.inf, math.inf), "–")],
)  # fmt: skip
def test_the_interval_is_shown_with_the_edges_it_has(accepted, shown):
    made = Ledger()
    made.add("1", "c", 0, accepted, "r", [0.0])
    assert made.rows()[0]["tolerance"] == shown


@pytest.mark.parametrize(("digits", "shown"), [(0, "1"), (2, "1.23"), (4, "1.2346")])
def test_numbers_are_rounded_for_print_alone(digits, shown):
    made = Ledger(digits=digits)
    kept = made.add("1", "c", 1.0, (1.234560, 1.234562), "r", [1.234561])
    assert made.rows()[0]["measured"] == shown
    assert kept.values == (1.234561,)
    assert kept.verdict == "reproduced"


@given(st.floats(-0.004, 0.004))
def test_a_value_that_rounds_to_zero_has_no_sign(value):
    made = Ledger()
    made.add("1", "c", 0, (-1, 1), "r", [value])
    assert made.rows()[0]["measured"] == "0.00"


def test_one_value_has_no_spread_and_none_has_no_mean():
    _, one, none = ledger().rows()
    assert (one["spread"], one["n"]) == ("–", 1)
    assert (none["measured"], none["spread"], none["n"]) == ("–", "–", 0)


def test_values_of_arrays_and_tensors_are_kept_as_floats():
    made = Ledger()
    kept = made.add("1", "c", 1.0, (0, 2), "r", np.array([1.0, 2.0], dtype=np.float32))
    assert [type(v) for v in kept.values] == [float, float]


def test_the_bundle_holds_text_table_and_rows_that_json_can_hold():
    made = ledger()
    bundle = made._repr_mimebundle_(include=None, exclude=None)
    assert set(bundle) == {"text/plain", "text/html", MIME}
    assert MIME == "application/vnd.ibcore.claims+json"
    assert json.loads(json.dumps(bundle[MIME], allow_nan=False)) == made.rows()


def test_text_and_table_show_every_claim_with_its_verdict():
    bundle = ledger()._repr_mimebundle_()
    lines, table = bundle["text/plain"].splitlines(), Cells(bundle["text/html"]).rows
    assert len(lines) == 3
    assert len(table) == 1 + 3
    assert len({len(row) for row in table}) == 1
    for row, line, cells in zip(bundle[MIME], lines, table[1:], strict=True):
        for key in ("figure", "claim", "published", "measured", "tolerance", "verdict"):
            assert row[key] in line
            assert any(row[key] in cell for cell in cells)
        assert any(row["reason"] in cell for cell in cells)


def test_the_table_names_the_stand_in():
    html = ledger(source="synthetic digits")._repr_mimebundle_()["text/html"]
    assert "stand-in (synthetic digits)" in html
    assert "(original)" not in ledger()._repr_mimebundle_()["text/html"]


@given(st.text("<>&\"'/ abscript", min_size=1, max_size=20))
def test_words_of_a_claim_are_text_and_never_markup(words):
    made = Ledger(source=f"s{words}")
    made.add(words, words, words, (0, 1), words, [0.5], unit=words)
    table = Cells(made._repr_mimebundle_()["text/html"])
    assert table.tags == {"table", "thead", "tbody", "tr", "th", "td"}
    shown = words.strip()  # blanks at the ends of a cell are none of its words
    assert table.rows[1][:3] == [shown, shown, shown]
    assert table.rows[1][5] == shown


def test_an_empty_ledger_is_an_empty_table():
    bundle = Ledger()._repr_mimebundle_()
    assert bundle[MIME] == []
    assert len(Cells(bundle["text/html"]).rows) == 1
