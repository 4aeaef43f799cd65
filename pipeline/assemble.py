"""Put the book together from its pages, the executed notebooks and their tables.

    python -m pipeline.assemble build/smoke/notebooks/*.ipynb build/smoke/book --tables TABLES
    python -m pipeline.assemble --record build/thesis/notebooks/*.ipynb book --tables TABLES
    python -m pipeline.assemble --reference build/smoke/notebooks/*.ipynb tests/reference ...

The first lays out a folder to build from: the pages of book/, the notebooks, the page of figures
out of their ledgers, the tables and a page to download them. The second makes a thesis run the
record that is committed, the third a smoke run what the tests compare with. Where there was
something before it stays until the new is whole.
"""

import argparse
import base64
import hashlib
import json
import shutil
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_markdown_cell

from pipeline import explorer, gallery, sizes
from pipeline.pages import claims, data_page, figures, judged, values, verdicts
from study import settings
from study.jobs import MANIFEST, beside, read_set, swap
from study.verify import is_stale

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "book"
LIST = "record.json"  # in the folder of tables: what the record consists of
PICTURES = {
    "plane.png": "figure-bounds",
    "falls.png": "figure-falls",
}  # of the cells that show them
LAGS = """:::{admonition} Made by an older source
:class: warning
The figures and numbers of this chapter come from a run of an earlier version of the sources. The
next `make thesis` or `make verify-record` renews or confirms it.
:::
"""


def assemble(notebooks: list[Path], target: Path, tables: Path, pages: Path = PAGES) -> None:
    """Lay out a folder to build the book from, in place of an older one."""
    part = beside(target)
    shutil.copytree(pages, part, ignore=shutil.ignore_patterns("notebooks", "tables", "_build"))
    _copy_notebooks(notebooks, part / "notebooks")
    _copy_tables(notebooks, tables, part / "tables")
    _write_pages(notebooks, part)
    (part / "data.md").write_text(data_page(part / "tables"), encoding="utf-8")
    (part / "gallery.md").write_text(gallery.page(notebooks), encoding="utf-8")
    gallery.write_pictures(notebooks, part / "extra" / "gallery")
    script = part / "extra" / "explorer" / "planes.js"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(explorer.script(part / "tables"), encoding="utf-8")
    script.with_name("sizes_data.js").write_text(sizes.script(part / "tables"), encoding="utf-8")
    for path in notebooks:
        copy = part / "notebooks" / path.name
        notebook = nbformat.read(copy, as_version=4)
        _leave_out(notebook)
        if lags(path, tables):
            notebook.cells.insert(1, new_markdown_cell(LAGS, id="lags"))
        nbformat.write(notebook, copy)
    swap(part, target)


def _write_pages(notebooks: list[Path], folder: Path) -> None:
    (folder / "figures.md").write_text(figures(notebooks), encoding="utf-8")
    if page := verdicts(notebooks):
        (folder / "verdicts.md").write_text(page, encoding="utf-8")
    for name, cell in PICTURES.items():
        if image := picture(notebooks, cell):
            (folder / "_static").mkdir(exist_ok=True)
            (folder / "_static" / name).write_bytes(image)


def _leave_out(notebook: nbformat.NotebookNode) -> None:
    """Take out the section tagged "optional" where none of its cells has shown anything."""
    optional = [cell for cell in notebook.cells if "optional" in cell.metadata.get("tags", [])]
    if not any(cell.get("outputs") for cell in optional):
        notebook.cells = [cell for cell in notebook.cells if cell not in optional]


def lags(executed: Path, tables: Path) -> bool:
    """Whether an executed notebook, or the tables it was drawn from, have an older source."""
    source = ROOT / "notebooks" / executed.name
    if not source.exists():
        return False
    now = {cell.id: cell.source for cell in nbformat.read(source, as_version=4).cells}
    then = {cell.id: cell.source for cell in nbformat.read(executed, as_version=4).cells}
    chapter = executed.stem[3:]
    stale = chapter in settings.CHAPTERS and is_stale(tables / chapter)
    return stale or any(then.get(name) != text for name, text in now.items())


def record(notebooks: list[Path], book: Path, tables: Path) -> None:
    """Make executed notebooks and their tables the record of the book, in place of the older one.

    Raises:
        ValueError: a ledger or verdicts rest on stand-in data, or tables were made by sources that
            are not committed.
    """
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        rests = {claim["source"]: repr(claim["claim"]) for claim in claims(notebook)}
        rests |= {judged(notebook).get("source", "original"): "its page of verdicts"}
        for source in rests.keys() - {"original"}:
            raise ValueError(f"{path}: {rests[source]} rests on stand-in {source!r}")
    for chapter in _chapters(notebooks):
        made = read_set(tables / chapter)[1]["commit"]
        if made.endswith("+"):
            raise ValueError(
                f"the tables of {chapter} were made by sources that differ from commit "
                f"{made[:12]}: commit them, then run the same again"
            )
    _write_both(notebooks, book, tables)
    _write_pages(notebooks, book)


def reference(notebooks: list[Path], folder: Path, tables: Path) -> None:
    """Make executed notebooks and their tables what the tests compare with."""
    _write_both(notebooks, folder, tables, within=".")


def _write_both(
    notebooks: list[Path], folder: Path, tables: Path, within: str = "notebooks"
) -> None:
    """Write tables and notebooks beside the old ones, then put them in their place."""
    new_tables, new_notebooks = beside(folder / "tables"), beside(folder / "executed")
    _copy_tables(notebooks, tables, new_tables)
    _copy_notebooks(notebooks, new_notebooks)
    text = json.dumps(hashes(new_notebooks, new_tables), indent=1, sort_keys=True)
    (new_tables / LIST).write_text(text + "\n", encoding="utf-8")
    swap(new_tables, folder / "tables")
    if within != ".":
        swap(new_notebooks, folder / within)
        return
    for old in folder.glob("*.ipynb"):
        if not (new_notebooks / old.name).exists():
            old.unlink()
    for path in new_notebooks.iterdir():
        path.replace(folder / path.name)
    new_notebooks.rmdir()


def hashes(notebooks: Path, tables: Path) -> dict[str, str]:
    """The SHA-256 of each notebook, of the claims, and of each manifest without its stamp.

    A manifest holds the hashes of its tables, and `study.verify` stamps it later.
    """
    found = {path.name: path.read_bytes() for path in notebooks.glob("*.ipynb")}
    found |= {path.name: path.read_bytes() for path in tables.glob("*.parquet")}
    for path in tables.glob(f"*/{MANIFEST}"):
        facts = json.loads(path.read_text(encoding="utf-8"))
        facts.pop("verified", None)
        found[f"{path.parent.name}/{MANIFEST}"] = json.dumps(facts, sort_keys=True).encode()
    return {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}


def picture(notebooks: list[Path], cell: str) -> bytes:
    """The picture that the cell of that name shows; empty without one."""
    for path in notebooks:
        for found in nbformat.read(path, as_version=4).cells:
            for output in found.get("outputs", []) if found.id == cell else []:
                return base64.b64decode(output["data"]["image/png"])
    return b""


def _chapters(notebooks: list[Path]) -> list[str]:
    return [path.stem[3:] for path in notebooks if path.stem in settings.CHAPTERS.values()]


def _copy_notebooks(notebooks: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for path in notebooks:
        shutil.copy(path, folder / path.name)


def _copy_tables(notebooks: list[Path], tables: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    for chapter in _chapters(notebooks):
        if (tables / chapter).exists():
            read_set(tables / chapter)  # raises where a table is damaged
            shutil.copytree(tables / chapter, folder / chapter)
    values(notebooks).to_parquet(folder / "claims.parquet", index=False, compression="zstd")


def main(arguments: list[str] | None = None) -> int:
    """Assemble from the command line; 0, or 1 with one message where something is wrong."""
    parser = argparse.ArgumentParser(prog="pipeline.assemble", description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", type=Path, nargs="+", help="executed notebooks")
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("--tables", type=Path, required=True, help="folder of the tables")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--record", action="store_true", help="make them the committed record")
    kind.add_argument("--reference", action="store_true", help="make them what tests compare with")
    options = parser.parse_args(arguments)
    write = record if options.record else reference if options.reference else assemble
    try:
        write(sorted(options.notebooks), options.folder, options.tables)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
