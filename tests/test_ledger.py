"""Laws of the ledger: claims come from their file, and the forms that are shown say the same."""

import json
import math
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from study import ledger as room
from study import settings
from study.ledger import MIME, Ledger

GAP = {"figure": "4.1", "claim": "gap of the bounds, σ² = {noise:g}", "published": "shrinks",
       "accepted": [-math.inf, 0.5], "reason": "a plot"}  # fmt: skip
SHARE = {"figure": "4.2", "claim": "accuracy", "published": 0.97, "accepted": [0.95, 0.99],
         "reason": "text", "unit": "share"}  # fmt: skip
PLANE = {"figure": "4.3", "claim": "another group's plane", "published": "a plane",
         "accepted": [-math.inf, math.inf], "reason": "no number"}  # fmt: skip


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "CLAIMS", tmp_path)

    def written(full=None, **claims):
        text = yaml.safe_dump({"full": full or {}, "claims": claims}, sort_keys=False)
        (tmp_path / "toy.yml").write_text(text)

    return written


def toy(source="original", noise=0.1, runs=3, **more):
    return Ledger("toy", SimpleNamespace(noise=noise, runs=runs, **more), source)


def filled(write, source="original"):
    write(gap=GAP, share=SHARE, plane=PLANE)
    made = toy(source)
    made.fill("gap", [0.1, 0.2, 0.3])
    made.fill("share", [0.961])
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


def test_claims_come_in_the_order_of_their_file_with_the_settings_in_their_words(write):
    made = filled(write)
    assert list(made.claims) == ["gap", "share", "plane"]
    assert made.claims["gap"].claim == "gap of the bounds, σ² = 0.1"
    assert made.claims["share"].accepted == (0.95, 0.99)


def test_a_row_says_all_that_the_figure_index_needs(write):
    row = filled(write).rows()[0]
    assert (row["key"], row["figure"], row["published"]) == ("gap", "4.1", "shrinks")
    assert (row["measured"], row["spread"], row["n"]) == ("0.20", "0.10", 3)
    assert row["interval"] == ["0.10", "0.30"]
    assert row["agree"] == 3
    assert row["values"] == [0.1, 0.2, 0.3]
    assert (row["tolerance"], row["reason"]) == ("≤ 0.5", "a plot")
    assert (row["verdict"], row["source"]) == ("reproduced", "original")


def test_what_was_measured_in_words(write):
    three, one, none = map(room.ours, filled(write).rows())
    assert three == "0.20 [0.10, 0.30], ± 0.10 (n = 3, 3 agree)"
    assert one == "0.96 share (n = 1)"
    assert none == "–"


def test_a_source_is_that_of_every_claim(write):
    verdicts = [row["verdict"] for row in filled(write, "synthetic digits").rows()]
    assert verdicts == ["stand-in", "stand-in", "not testable"]


@pytest.mark.parametrize(
    ("given", "whole"),
    [({}, True), ({"runs": 9}, True), ({"runs": 2}, False), ({"widths": (3, 5)}, False)],
)
def test_another_length_is_a_reduced_run_and_more_runs_are_none(write, given, whole):
    write({"runs": 3, "widths": [3, 4]}, gap=GAP)
    made = toy(**{"widths": (3, 4), **given})
    assert made.claims["gap"].full is whole


def test_a_key_is_filled_once_and_must_be_known(write):
    made = filled(write)
    with pytest.raises(ValueError, match=r"no claim 'gap' to fill: the file has \['plane'\] left"):
        made.fill("gap", [1.0])
    with pytest.raises(ValueError, match="no claim 'other'"):
        made.fill("other", [1.0])


@pytest.mark.parametrize(
    "entry", [{k: v for k, v in GAP.items() if k != "reason"}, GAP | {"tolerance": 1}]
)
def test_a_claim_that_lacks_something_or_has_too_much_is_named(write, entry):
    write(gap=entry)
    with pytest.raises(ValueError, match="gap lacks"):
        toy()


def test_a_file_that_is_missing_is_named(write):
    with pytest.raises(ValueError, match=r"no claims of 'toy'.*toy\.yml"):
        toy()


@pytest.mark.parametrize(
    ("accepted", "shown"),
    [([0, 1], "0 to 1"), ([-math.inf, 0], "≤ 0"), ([0, math.inf], "≥ 0"),
     ([-0.5, 0.25], "-0.5 to 0.25"), ([-math.inf, math.inf], "–")],
)  # fmt: skip
def test_the_interval_is_shown_with_the_edges_it_has(write, accepted, shown):
    write(gap=GAP | {"accepted": accepted})
    assert toy().rows()[0]["tolerance"] == shown


@given(st.floats(-0.004, 0.004))
def test_a_value_that_rounds_to_zero_has_no_sign(value):
    assert room.number(value) == "0.00"


def test_values_of_arrays_are_kept_as_floats_and_shown_to_twelve_digits(write):
    write(gap=GAP)
    kept = toy().fill("gap", np.array([1 / 3, 0.25], dtype=np.float32))
    assert [type(v) for v in kept.values] == [float, float]
    assert room.row(kept)["values"] == [0.333333343267, 0.25]


def test_the_bundle_holds_text_table_and_rows_that_json_can_hold(write):
    made = filled(write)
    bundle = made._repr_mimebundle_(include=None, exclude=None)
    assert set(bundle) == {"text/plain", "text/html", MIME}
    assert json.loads(json.dumps(bundle[MIME], allow_nan=False)) == made.rows()
    lines, table = bundle["text/plain"].splitlines(), Cells(bundle["text/html"]).rows
    assert len(lines) == 3
    assert len({len(row) for row in table}) == 1
    for row, line, cells in zip(bundle[MIME], lines, table[1:], strict=True):
        for key in ("figure", "claim", "published", "measured", "tolerance", "verdict"):
            assert row[key] in line
            assert any(row[key] in cell for cell in cells)
        assert any(row["reason"] in cell for cell in cells)


def test_the_table_names_the_stand_in(write):
    html = filled(write, "synthetic digits")._repr_mimebundle_()["text/html"]
    assert "stand-in (synthetic digits)" in html


def test_words_of_a_claim_are_text_and_never_markup(write):
    words = "<script>&\"'</td>"
    write(gap=GAP | {"claim": words, "reason": words})
    table = Cells(toy(words)._repr_mimebundle_()["text/html"])
    assert table.tags == {"table", "thead", "tbody", "tr", "th", "td", "span"}
    assert table.rows[1][1] == table.rows[1][5] == words


def test_a_long_claim_is_shown_whole(write):
    write(gap=GAP | {"claim": 40 * "word ", "reason": 40 * "why "})
    html = toy()._repr_mimebundle_()["text/html"]
    assert html.count("word") == html.count("why") == 40


def test_a_claim_that_is_badly_put_says_why_and_names_the_better_one(write):
    write(gap=GAP | {"flaw": "it can't fail", "instead": "share"}, share=SHARE)
    made = toy()
    made.fill("gap", [0.1, 0.2])
    assert made.table["Claim"][0].endswith("(badly put: it can't fail; see share)")
    assert 'class="verdict badly-put"' in made._repr_mimebundle_()["text/html"]


def test_a_better_claim_that_is_not_there_is_named(write):
    write(gap=GAP | {"flaw": "it can't fail", "instead": "other"})
    with pytest.raises(ValueError, match="gap names 'other'"):
        toy()


def test_what_sits_at_its_ceiling_is_matched_by_run(write):
    write(gap=GAP)
    sits = pd.Series({3: False, 4: True, 5: True})
    kept = toy().fill("gap", pd.Series({5: 0.1, 4: 0.2}), sits)
    assert kept.saturated == (True, True)
    assert kept.verdict == "saturated"
    assert room.row(kept)["saturated"] == 2


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.7800, 0.7804], ("0.7802", "0.0003")),
        ([0.71, 0.79], ("0.75", "0.06")),
        ([0.0, 0.0], ("0.00", "0.00")),
        ([0.001], ("0.001", "–")),
        ([1e-9, 2e-9], ("0.00", "0.00")),
    ],
)
def test_a_spread_is_shown_with_digits_enough_to_be_seen(write, values, shown):
    write(gap=GAP)
    row = room.row(toy().fill("gap", values))
    assert (row["measured"], row["spread"]) == shown


@pytest.mark.parametrize("chapter", sorted({*settings.CHAPTERS} - {"black_box"}))  # its own form
def test_the_claims_of_every_chapter_can_be_read_with_its_settings(chapter):
    for profile, whole in (("smoke", False), ("thesis", True)):
        chosen = settings.profile(chapter, settings.PROFILES / f"{profile}.yml")
        made = Ledger(chapter, chosen, "original")
        assert made.claims
        assert {claim.full for claim in made.claims.values()} == {whole}
