"""Pages that are written: figures.md out of the ledgers, data.md out of the manifests."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from study import settings
from study.closure import ROOT
from study.jobs import MANIFEST
from study.ledger import MIME, ours

HEADER = """# Figures and claims

Every claim of the study, published value beside ours, from the ledgers of the executed notebooks.
Ours is the mean over *n* seeds, its 95 % interval in brackets (bootstrap), the standard deviation
over seeds after ±, and how many of the seeds agree by themselves. A verdict is "reproduced" where
the interval lies within what is accepted, "partly" where it crosses an edge, and "not reproduced"
where it lies outside. Information is in bits. The first column names the figure of the thesis, or
another source, and leads to the chapter. Verdicts rest on the original data, unless one says
"stand-in" and names it. A "reduced run" was shorter than the published one and decides nothing.

:::{table}
:class: ledger

| Figure | Claim | Published | Ours | Accepted, and why | Verdict |
|---|---|---|---|---|---|
"""
OLDER = """:::{admonition} Made by an older edition
:class: warning
Rows without brackets are from before the interval: their verdict rests on mean ± deviation.
:::

"""
DATA = """# The data of each figure

What the figures and numbers are drawn from, as the jobs wrote it, in
[Parquet](https://parquet.apache.org). Each row names its job in the column `job`. The manifest says
what the job was asked, by which sources, on what machine, and how long it took. In Python:

```python
import pandas as pd

planes = pd.read_parquet("planes.parquet")
```

Information is in bits, accuracy a share of the samples, loss in bits. `claims.parquet` holds the
value of every claim for each seed.
"""


def claims(notebook: nbformat.NotebookNode) -> Iterator[dict[str, Any]]:
    """The claims of the ledgers that an executed notebook shows, in order."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            yield from output.get("data", {}).get(MIME, [])


def figures(notebooks: list[Path]) -> str:
    """The page figures.md: one row a claim."""
    found = [(path, list(claims(nbformat.read(path, as_version=4)))) for path in notebooks]
    rows = [_row(claim, f"notebooks/{path.name}") for path, held in found for claim in held]
    older = any("values" not in claim for _, held in found for claim in held)
    head = HEADER.replace(":::{table}", OLDER + ":::{table}") if older else HEADER
    return head + "".join(rows) + ":::\n"


def _row(claim: dict[str, Any], chapter: str) -> str:
    original = claim["source"] == "original"
    unit = f" {claim['unit']}" if claim["unit"] else ""
    cells = [
        f"[{claim['figure']}]({chapter})",
        claim["claim"],
        claim["published"],
        _measured(claim),
        f"{claim['tolerance']}{unit}: {claim['reason']}",
        claim["verdict"] if original else f"stand-in: {claim['source']}",
    ]
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"


def _measured(claim: dict[str, Any]) -> str:
    """What a row measured; ledgers of records before the tables have no interval."""
    if "values" in claim or not claim["n"]:
        return ours(claim)
    spread = "" if claim["spread"] == "–" else f" ± {claim['spread']}"
    unit = f" {claim['unit']}" if claim["unit"] else ""
    return f"{claim['measured']}{spread}{unit} (n = {claim['n']})"


def values(notebooks: list[Path]) -> pd.DataFrame:
    """The values of all claims: chapter, key, place of the seed, value (to twelve digits)."""
    rows = [
        {"chapter": path.stem, "key": claim["key"], "place": place, "value": value}
        for path in notebooks
        for claim in claims(nbformat.read(path, as_version=4))
        for place, value in enumerate(claim.get("values", []))
    ]
    return pd.DataFrame(rows, columns=["chapter", "key", "place", "value"])


def data_page(tables: Path) -> str:
    """The page data.md: every table with its rows, size and a link."""
    page = DATA
    if not list(tables.glob(f"*/{MANIFEST}")):
        page += (
            "\nThis record was made before there were tables; the next `make thesis` writes them.\n"
        )
    for chapter, stem in settings.CHAPTERS.items():
        if not (tables / chapter / MANIFEST).exists():
            continue
        facts = json.loads((tables / chapter / MANIFEST).read_text(encoding="utf-8"))
        hours = sum(job["seconds"] for job in facts["jobs"].values()) / 3600
        says = described(chapter)
        page += f"\n## {_title(stem)}\n\n"
        page += f"[The chapter](notebooks/{stem}.ipynb) has {len(facts['jobs'])} jobs, "
        page += f"{hours:.2f} hours of one core; its "
        page += f"{{download}}`manifest <tables/{chapter}/{MANIFEST}>`.\n\n"
        page += "| Table | Rows | kB | What it holds |\n|---|---|---|---|\n"
        for name, entry in facts["tables"].items():
            file = f"{chapter}/{name}.parquet"
            size = (tables / file).stat().st_size / 1000
            link = f"{{download}}`{name} <tables/{file}>`"
            page += f"| {link} | {entry['rows']} | {size:.0f} | {says.get(name, '')} |\n"
    if (tables / "claims.parquet").exists():
        page += "\n## All chapters\n\n{download}`claims <tables/claims.parquet>`\n"
    return page


def described(chapter: str) -> dict[str, str]:
    """What each table of a chapter holds, from the docstring of its `run`."""
    text = settings.chapter_module(chapter).run.__doc__ or ""
    entry = re.compile(r"^    (\w+(?:, \w+)*): (.*?)(?=^    \w+(?:, \w+)*: |\Z)", re.M | re.S)
    return {
        name: " ".join(words.split())
        for names, words in entry.findall(text)
        for name in names.split(", ")
    }


def _title(stem: str) -> str:
    """The title of a chapter."""
    path = ROOT / "notebooks" / f"{stem}.ipynb"
    text: str = nbformat.read(path, as_version=4).cells[0].source
    return next(line[2:] for line in text.splitlines() if line.startswith("# "))
