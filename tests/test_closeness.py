"""Laws of the comparison: a rounding is forgiven, a number that moved and a word are not."""

import json
from pathlib import Path

import pytest
from closeness import Printed

SOURCES = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("0.40 bits", "0.41 bits"),
        ("test accuracy 0.97", "test accuracy 0.96"),
        ("layer   0.00\n", "layer  -0.01\n"),
        ("1.2e-05", "1.3e-05"),
        ("<td>3.14</td>", "<td>3.15</td>"),
        ("a  b\n----", "a b\n-----"),
    ],
)
def test_what_rounding_changes_is_the_same(a, b):
    assert Printed(a) == b
    assert Printed(b) == a
    assert not Printed(a) != b  # noqa: SIM202  (nbval asks this way)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("0.40 bits", "0.42 bits"),
        ("0.40 bits", "0.40 nats"),
        ("3 of 12", "4 of 12"),
        ("0.4, 0.5", "0.4"),
        ("1.2e-05", "1.2e-04"),
        ("SHA-256 d3ab1.1", "SHA-256 d3ab1.2"),
        ("1.0", "-1.0"),
    ],
)
def test_what_moved_is_not(a, b):
    assert Printed(a) != b
    assert Printed(b) != a


def test_a_cell_may_allow_more():
    assert Printed("0.40 bits", tolerance=0.05) == "0.44 bits"
    assert Printed("0.40 bits", tolerance=0.05) != "0.46 bits"
    assert Printed("3 of 12", counts=1) == "4 of 12"
    assert Printed("3 of 12", counts=1) != "5 of 12"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_cell_that_allows_more_says_why(source):
    for cell in json.loads(source.read_text(encoding="utf-8"))["cells"]:
        allowed = cell["metadata"].get("nbval", {})
        assert not allowed or allowed["reason"]
        assert set(allowed) <= {"tolerance", "counts", "reason"}
