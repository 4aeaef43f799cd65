"""Put the book together from its pages and the executed notebooks.

    python -m pipeline.assemble build/smoke/notebooks/*.ipynb build/smoke/book
    python -m pipeline.assemble --record build/thesis/notebooks/*.ipynb book
    python -m pipeline.assemble --figures book/notebooks/*.ipynb book

The first copies the pages of book/ and the notebooks into a folder to build from, and writes
figures.md out of the ledgers. The second makes a thesis run the record that is committed. The
third only writes figures.md.
"""

import argparse
import base64
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_markdown_cell

CLAIMS = "application/vnd.ibcore.claims+json"
PAGES = Path(__file__).resolve().parent.parent / "book"
LAGGING = "lagging.txt"  # beside the pages: chapters whose record is older than their source
LAGS = """:::{admonition} Made by an older source
:class: warning
The figures and numbers of this chapter come from a run of an earlier version of the package. It
drew weights in float32, so that a run of today's source gives other networks; names in its code may
be older too. The next `make thesis` renews it.
:::
"""
HEADER = """# Figures and claims

Every claim of the study, published value beside ours, from the ledgers of the executed notebooks.
Ours is the mean over *n* seeds ± their standard deviation. Information is in bits. The first column
names the figure of the thesis, or another source, and leads to the chapter. Verdicts rest on the
original data, unless one says "stand-in" and names it. A "reduced run" was shorter than the
published one and decides nothing.

:::{table}
:class: ledger

| Figure | Claim | Published | Ours | Accepted, and why | Verdict |
|---|---|---|---|---|---|
"""


def claims(notebook: nbformat.NotebookNode) -> Iterator[dict[str, Any]]:
    """The claims of the ledgers that an executed notebook shows, in order."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            yield from output.get("data", {}).get(CLAIMS, [])


def figures(notebooks: list[Path]) -> str:
    """The page figures.md: one row a claim."""
    rows = []
    for path in notebooks:
        chapter = f"notebooks/{path.name}"
        rows += [_row(claim, chapter) for claim in claims(nbformat.read(path, as_version=4))]
    return HEADER + "".join(rows) + ":::\n"


def _row(claim: dict[str, Any], chapter: str) -> str:
    original = claim["source"] == "original"
    spread = "" if claim["spread"] == "–" else f" ± {claim['spread']}"
    unit = f" {claim['unit']}" if claim["unit"] else ""
    cells = [
        f"[{claim['figure']}]({chapter})",
        claim["claim"],
        claim["published"],
        f"{claim['measured']}{spread}{unit} (n = {claim['n']})" if claim["n"] else "–",
        f"{claim['tolerance']}{unit}: {claim['reason']}",
        claim["verdict"] if original else f"stand-in: {claim['source']}",
    ]
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"


def assemble(notebooks: list[Path], target: Path, pages: Path = PAGES) -> None:
    """Lay out a folder to build the book from, in place of an older one."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(pages, target, ignore=shutil.ignore_patterns("notebooks", "_build"))
    _copy(notebooks, target)
    for path in notebooks:
        if path.resolve().parent == pages.resolve() / "notebooks" and path.stem in lagging(pages):
            copy = target / "notebooks" / path.name
            notebook = nbformat.read(copy, as_version=4)
            notebook.cells.insert(1, new_markdown_cell(LAGS, id="lags"))
            nbformat.write(notebook, copy)


def lagging(book: Path = PAGES) -> set[str]:
    """The chapters whose record an older source made, by their stems."""
    listed = book / LAGGING
    return set(listed.read_text(encoding="utf-8").split()) if listed.exists() else set()


def record(notebooks: list[Path], book: Path) -> None:
    """Make executed notebooks the record of the book, in place of the older one.

    Raises:
        ValueError: a ledger rests on stand-in data.
    """
    for path in notebooks:
        for claim in claims(nbformat.read(path, as_version=4)):
            if claim["source"] != "original":
                raise ValueError(
                    f"{path}: {claim['claim']!r} rests on stand-in {claim['source']!r}"
                )
    shutil.rmtree(book / "notebooks", ignore_errors=True)
    _copy(notebooks, book)
    (book / LAGGING).unlink(missing_ok=True)
    if image := cover(notebooks):
        (book / "_static" / "plane.png").write_bytes(image)


def cover(notebooks: list[Path], cell: str = "figure-bounds") -> bytes:
    """The picture that the README shows, out of the cell of that name; empty without one."""
    for path in notebooks:
        for found in nbformat.read(path, as_version=4).cells:
            for output in found.get("outputs", []) if found.id == cell else []:
                return base64.b64decode(output["data"]["image/png"])
    return b""


def _copy(notebooks: list[Path], book: Path) -> None:
    (book / "notebooks").mkdir(parents=True)
    for path in notebooks:
        shutil.copy(path, book / "notebooks" / path.name)
    (book / "figures.md").write_text(figures(notebooks), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Assemble from the command line; 0, or 1 with one message where something is wrong."""
    parser = argparse.ArgumentParser(prog="pipeline.assemble", description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", type=Path, nargs="+", help="executed notebooks")
    parser.add_argument("book", type=Path, help="folder to write")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--record", action="store_true", help="make them the committed record")
    kind.add_argument("--figures", action="store_true", help="write only figures.md")
    options = parser.parse_args(arguments)
    paths = sorted(options.notebooks)
    try:
        if options.figures:
            (options.book / "figures.md").write_text(figures(paths), encoding="utf-8")
        elif options.record:
            record(paths, options.book)
        else:
            assemble(paths, options.book)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
