"""What the explorer draws from, and the cards of the gallery."""

import json

import numpy as np
import pandas as pd
import pytest

from pipeline import explorer, gallery, sizes
from study import settings
from study.jobs import write_set


def planes(**columns):
    """A plane of two layers, two epochs and one seed."""
    table = pd.DataFrame(
        {
            "run": 3, "epoch": [1, 1, 9, 9], "layer": ["a", "b"] * 2, "estimator": "BD",
            "i_xz": [1.0, 0.5, 2.004, np.nan], "i_zy": [0.1, 0.2, 0.3, np.inf],
            "ceiling": [2.0, 2.0, 2.0, np.inf], "label_entropy": 0.99,
        }
    )  # fmt: skip
    return table.assign(**columns)


def drawn(folder, **tables):
    write_set(folder / "cora", tables, {"chapter": "cora"})
    text = explorer.script(folder)
    assert text.startswith("var PLANES = JSON.parse('")
    return json.loads(text[len("var PLANES = JSON.parse('") : -len("');\n")].replace("\\\\", "\\"))


def test_a_plane_is_told_in_hundredths_with_its_limits(tmp_path):
    found = drawn(tmp_path, planes=planes(network="FCN"))
    (plane,) = found["planes"]
    assert plane["choices"] == ["Cora", "FCN", "–", "BD"]
    assert (plane["layers"], plane["epochs"], plane["runs"]) == (["a", "b"], [1, 9], [3])
    assert plane["x"] == [100, 50, 200, None]
    assert plane["y"] == [10, 20, 30, None]
    assert (plane["ceiling"], plane["labels"]) == (2.0, 0.99)
    assert plane["source"] == ""
    assert len(found["missing"]) == len(explorer.TITLES) - 1  # the other chapters


def test_a_plane_that_two_tables_hold_is_told_once_and_a_share_is_named(tmp_path):
    more = planes(network="FCN", share=0.05)
    found = drawn(tmp_path, planes=planes(network="FCN", share=0.85), policies=pd.concat([
        planes(network="FCN", share=0.85), more
    ]), facts=pd.DataFrame({"source": ["blobs"]}))  # fmt: skip
    assert [plane["choices"][2] for plane in found["planes"]] == ["85 %", "5 %"]
    assert {plane["source"] for plane in found["planes"]} == {"blobs"}


def layers(**columns):
    """What `diagnose` found in one network of two layers, twice."""
    table = pd.DataFrame(
        {
            "layer": ["a", "b"] * 2, "run": [1, 1, 2, 2], "units": [8, 4] * 2,
            "directions": [4, 3] * 2, "needed": [2.0, 4.0, 3.0, 4.0], "width": [4, 8, 6, 8],
            "confidence": [1.0, np.nan, 0.5, np.nan],
            "verdict": ["over-sized", "bottleneck", "fine", "bottleneck"],
        }
    )  # fmt: skip
    return table.assign(**columns)


def test_layers_and_files_are_means_over_seeds_and_what_is_missing_is_named(tmp_path):
    held = {
        "layers": pd.concat([layers(kind="a net", case="ordinary"), layers(kind="b", case="wide")]),
        "evidence": layers(shape="784-10"),
        "facts": pd.DataFrame({"source": ["original", "blobs"]}),
    }
    write_set(tmp_path / "capacity", held, {"chapter": "capacity"})
    text = sizes.script(tmp_path)
    found = json.loads(text.removeprefix("var SIZES = JSON.parse('").removesuffix("');\n"))
    assert [panel["name"] for panel in found["layers"]] == ["784-10", "a net"]  # none but these
    assert {(panel["runs"], panel["source"]) for panel in found["layers"]} == {(2, "blobs")}
    first, second = found["layers"][0]["layers"]
    assert (first["needed"], first["width"], first["confidence"]) == (2.5, 5.0, 0.75)
    assert first["verdict"] == "fine or over-sized"  # one seed each
    assert (second["verdict"], second["confidence"]) == ("bottleneck", None)
    assert found["files"] == []
    assert found["missing"][0].startswith("files, which are those of 10_compression")


def test_a_file_is_a_geometric_mean_beside_what_it_was(tmp_path):
    rows = pd.DataFrame(
        {
            "kind": "a net", "technique": ["as it is"] * 2 + ["nearest"] * 2, "run": [1, 2] * 2,
            "bytes": [4000.0, 4000.0, 100.0, 400.0], "parameters": 1000,
            "before_test": [0.9, 0.8] * 2, "test_accuracy": [0.9, 0.8, 0.7, 0.8],
        }
    )  # fmt: skip
    curve = rows.assign(rounding="nearest", step=[-1.0, -1.0, 0.0, 0.0])
    held = {"techniques": rows, "curve": curve}
    write_set(tmp_path / "compression", held, {"chapter": "compression"})
    text = sizes.script(tmp_path)
    found = json.loads(text.removeprefix("var SIZES = JSON.parse('").removesuffix("');\n"))
    (panel,) = found["files"]
    assert (panel["memory"], panel["before"], panel["runs"]) == (4.0, 0.85, 2)
    assert panel["techniques"] == [["as it is", 4.0, 0.85], ["nearest", 0.2, 0.75]]
    assert panel["lines"] == [{"name": "nearest", "points": [[-1.0, 4.0, 0.85], [0.0, 0.2, 0.75]]}]


def test_a_damaged_table_is_named(tmp_path):
    drawn(tmp_path, planes=planes(network="FCN"))
    (tmp_path / "cora" / "planes.parquet").write_bytes(b"no table")
    text = explorer.script(tmp_path)
    assert "planes.parquet is damaged" in text


def test_every_chapter_of_the_explorer_is_one():
    assert set(explorer.TITLES) <= set(settings.CHAPTERS)


@pytest.mark.parametrize(
    ("name", "caption", "fits"),
    [
        ("4.2", "Planes after figure 4.2 of the thesis.", True),
        ("5.3", "Planes, after figures 5.2 (σ² = 0.001, above) and 5.3.", True),
        ("5.1", "Distances after figure 5.12 of the thesis.", False),
        ("4.2", "With a noise of 4.2, of no figure.", False),
    ],
)
def test_a_picture_is_that_of_the_figure_that_its_caption_names(name, caption, fits):
    assert gallery.after(name, caption) is fits


@pytest.mark.parametrize(
    ("figure", "source"),
    [("4.2 (original paper, figure 3)", "4.2"), ("5.6 (L1009)", "5.6"), ("delve", "delve")],
)
def test_a_claim_belongs_to_the_figure_that_it_starts_with(figure, source):
    assert gallery.source(figure) == source
