"""The page gallery.md: for each figure of a source our picture, its claims, and their verdicts."""

import base64
import re
from collections.abc import Iterator
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from PIL import Image

from pipeline.pages import claims, title
from study.ledger import badge, ours, stated

WIDTH = 360  # pixels of a picture: a card is half of that on a plain screen
PAGE = """# Gallery

Every figure that makes a claim: our picture of it where there is one, what was published, what we
measured, and the verdict. What the words mean, how the intervals are made, and all rows in one
table: {{doc}}`figures`. The debate has its own pages: {{doc}}`verdict`, {{doc}}`verdicts`.

```{{include}} figures.md
:start-after: <!-- tally -->
:end-before: <!-- /tally -->
```

```{{raw}} html
<link rel="stylesheet" href="gallery/gallery.css">
<div id="cards-choice" hidden></div>
<div id="cards">
{cards}</div>
<script src="gallery/gallery.js"></script>
```
"""


class Figure(NamedTuple):
    """A figure of an executed notebook: the cell that shows it, its name, its caption."""

    cell: str
    name: str
    caption: str
    image: bytes


def page(notebooks: list[Path]) -> str:
    """Return the page; without a script it shows every card."""
    return PAGE.format(cards="".join(card for path in notebooks for card in _cards(path)))


def write_pictures(notebooks: list[Path], folder: Path) -> None:
    """Write the pictures of the cards, small, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in notebooks:
        for figure in _shown(path):
            with Image.open(BytesIO(figure.image)) as image:
                small = image.convert("RGB")
            small.thumbnail((WIDTH, 2 * WIDTH))
            small.save(folder / _file(path, figure), optimize=True)


def _cards(path: Path) -> Iterator[str]:
    """Yield a card a figure of a source, in the order of its claims."""
    notebook = nbformat.read(path, as_version=4)
    groups: dict[str, list[dict[str, Any]]] = {}
    for claim in claims(notebook):
        groups.setdefault(source(claim["figure"]), []).append(claim)
    chapter, html = title(path).partition(":")[0], f"notebooks/{path.stem}.html"
    figures = list(_shown(path))
    for name, held in groups.items():
        figure = next((f for f in figures if after(name, f.caption)), None)
        link = html + (f"#{figure.name}" if figure else "")
        heading = f"Thesis, figure {name}" if name[0].isdigit() else name[0].upper() + name[1:]
        verdicts = escape(" ".join({c["verdict"].replace(" ", "-"): 0 for c in held}))
        yield f'<article data-chapter="{escape(chapter)}" data-verdicts="{verdicts}">\n'
        yield f'<h2><a href="{link}">{escape(heading)}</a></h2>\n<p>{escape(chapter)}</p>\n'
        if figure:
            yield f'<img src="gallery/{_file(path, figure)}" alt="{escape(figure.caption)}"'
            yield ' loading="lazy">\n'
        yield "<ul>\n" + "".join(map(_item, held)) + "</ul>\n"
        yield f'<p><a href="data.html" aria-label="Data of {escape(heading)}">Data</a></p>\n'
        yield "</article>\n"


def _item(claim: dict[str, Any]) -> str:
    both = f"published: {claim['published']}; ours: {ours(claim)}"
    return f"<li>{escape(stated(claim))}<br><small>{escape(both)}</small><br>{badge(claim)}</li>\n"


def source(figure: str) -> str:
    """Return the figure that a claim belongs to: "4.2" for "4.2 (original paper, figure 3)"."""
    number = re.match(r"\d+\.\d+", figure)
    return number[0] if number else figure


def after(name: str, caption: str) -> bool:
    """Whether a caption says that its picture is made after the figure of that number."""
    _, said, rest = caption.partition("after figure")
    return bool(said and re.search(rf"(?<![\d.]){re.escape(name)}(?![\d.]*\d)", rest))


def _shown(path: Path) -> Iterator[Figure]:
    """Yield the figures of a notebook that has claims."""
    notebook = nbformat.read(path, as_version=4)
    if not any(claims(notebook)):
        return
    for cell in notebook.cells:
        says = cell.metadata.get("mystnb", {}).get("figure")
        for output in cell.get("outputs", []) if says else []:
            if content := output.get("data", {}).get("image/png"):
                image = base64.b64decode(content)
                yield Figure(cell.id, says["name"], says["caption"], image)


def _file(path: Path, figure: Figure) -> str:
    return f"{path.stem}-{figure.cell}.png"
