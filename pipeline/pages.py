"""Pages that are written: figures.md and verdicts.md out of notebooks, data.md out of manifests."""

import inspect
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from ibcore.claims import VERDICTS
from study import protocol, settings
from study.closure import ROOT
from study.jobs import MANIFEST
from study.ledger import MIME, badge, ours, stated

HEADER = """# Figures and claims

Every claim of the study, published value beside ours, from the ledgers of the executed notebooks,
which hold them chapter by chapter. They stand in `study/claims/`, before the runs that decide them;
where one was added afterwards, its row says so.

<!-- tally -->
{tally}
<!-- /tally -->

**Ours** is the mean over *n* seeds, its 95 % interval in brackets (bootstrap), the standard
deviation over seeds after ±, and how many of the seeds agree by themselves. With few seeds the
interval is too narrow: of 3 seeds it covers the mean in some 75 of 100 cases, of 10 in 90, of 50 in
94. A quantity that sits on an edge passes it by chance as often as the interval misses one way.
Information is in bits.

**The verdict** says where that interval lies:

| verdict | what it says |
|---|---|
| {reproduced} | the interval lies within what is accepted |
| {partly} | it crosses an edge |
| {not reproduced} | it lies outside |
| {theorem} | a proof decides, and no run could: it says what is accepted |
| {saturated} | the points behind it sit at log₂N and show the number of samples |
| {badly put} | the claim can't be tested as it stands; it is kept beside a better one |
| {not testable} | the source gives nothing to compare with, or our data can't tell |

Verdicts rest on the original data; a stand-in is named. A "reduced run" was shorter than the
published one and decides nothing. The first column names the figure of the thesis, or another
source, and leads to the chapter; below it is the claim's key. A click on a heading sorts its table;
the {{doc}}`gallery` has pictures and filters.

```{{raw}} html
<script defer src="gallery/sort.js"></script>
```
"""
TABLE = """
:::{table}
:class: ledger

| Figure | Claim | Published | Ours | Accepted, and why | Verdict |
|---|---|---|---|---|---|
"""
VERDICTS_PAGE = """# Every verdict

Each claim of {{doc}}`notebooks/06_black_box`, on each network and by each estimator. The networks
are those of `study/black_box.py`, the claims those of `study/claims/black_box.yml`, where each has
its threshold, what refutes it and why. The tests, and Holm's correction for a claim's rows, are
those of `study/protocol.py`. How to read it: {{doc}}`verdict`.

<!-- summary -->
{summary}
<!-- /summary -->
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

<!-- compute -->
{compute}
<!-- /compute -->
"""


def claims(notebook: nbformat.NotebookNode) -> Iterator[dict[str, Any]]:
    """The claims of the ledgers that an executed notebook shows, in order."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            yield from output.get("data", {}).get(MIME, [])


def figures(notebooks: list[Path]) -> str:
    """The page figures.md: the tally, then a table a chapter, one row a claim."""
    found = {path: list(claims(nbformat.read(path, as_version=4))) for path in notebooks}
    words = {name: _word(name) for name in VERDICTS}
    page = HEADER.format(tally=tally(found), **words)
    for path, held in found.items():
        if held:
            rows = "".join(_row(claim, f"notebooks/{path.name}") for claim in held)
            page += f"\n## {title(path)}\n{TABLE}{rows}:::\n"
    return page


def tally(found: Mapping[Path, list[dict[str, Any]]]) -> str:
    """How many claims of each chapter have each verdict, as a table."""
    verdicts = [name for name in VERDICTS if any(c["verdict"] == name for c in _all(found))]
    head = ["Chapter", *map(_word, verdicts), "claims"]
    lines = [head, ["---"] * len(head)]
    for path, held in found.items():
        if held:
            link = f"[{title(path).partition(':')[0]}](notebooks/{path.name})"
            lines.append([link, *_counts(held, verdicts)])
    lines.append(["all", *_counts(_all(found), verdicts)])
    return _table(lines, "tally")


def _word(verdict: str) -> str:
    return badge({"verdict": verdict, "source": "original"})


def _all(found: Mapping[Path, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [claim for held in found.values() for claim in held]


def _counts(held: list[dict[str, Any]], verdicts: list[str]) -> list[str]:
    counts = Counter(claim["verdict"] for claim in held)
    return [*(str(counts[name] or "–") for name in verdicts), str(len(held))]


def _row(claim: dict[str, Any], chapter: str) -> str:
    unit = f" {claim['unit']}" if claim["unit"] else ""
    cells = [
        f"[{claim['figure']}]({chapter})<br>`{claim['key']}`",
        stated(claim),
        claim["published"],
        ours(claim),
        f"{claim['tolerance']}{unit}: {claim['reason']}",
        badge(claim),
    ]
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"


def judged(notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """The verdicts that an executed notebook shows; empty without."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if held := output.get("data", {}).get(protocol.MIME):
                return dict(held)
    return {}


def verdicts(notebooks: list[Path]) -> str:
    """The page verdicts.md: a line a claim, then a table of its rows; empty without verdicts."""
    found = (judged(nbformat.read(path, as_version=4)) for path in notebooks)
    return next((_verdicts(held) for held in found if held), "")


def _verdicts(held: Mapping[str, Any]) -> str:
    claims, _ = protocol.read()
    by: dict[str, list[dict[str, Any]]] = {key: [] for key in claims if key in held["claims"]}
    for row in held["rows"]:
        by[row["key"]].append(row)
    lines = [["Claim", "Source", "Verdict", "Rows"], ["---"] * 4]
    for key, rows in by.items():
        counts = Counter(row["verdict"] for row in rows)
        said = [f"{counts[name]} {name}" for name in protocol.VERDICTS if counts[name]]
        turn = sum(row["turns"] for row in rows)
        said += [f"{turn} turn"] if turn else []
        claim = f"{protocol.stated(claims[key])}<br>`{key}`"
        verdict = protocol.badge(held["claims"][key])
        lines.append([claim, _source(claims[key]), verdict, "<br>".join(said)])
    page = VERDICTS_PAGE.format(summary=_table(lines, "ledger verdicts"))
    for key, rows in by.items():
        low, high = claims[key]["accepted"]
        page += f"\n## {key}\n\n{protocol.stated(claims[key])}. Accepted from {low} to {high}: "
        page += f"{claims[key]['reason']}. Refuted by {claims[key]['refuted_by']}.\n\n"
        shown = [["Network", "Estimator", "Mean [95 %], seeds that agree", "p", "Verdict"]]
        shown.append(["---"] * len(shown[0]))
        for row in rows:
            p = "–" if row["p"] is None else f"{row['p']:.1g}"
            mark = " (turns)" if row["turns"] else ""
            verdict = protocol.badge(row["verdict"]) + mark
            found = protocol.numbers(row)
            shown.append([f"`{row['arm']}`", row["estimator"], found, p, verdict])
        page += f"````{{dropdown}} {len(rows)} rows\n\n{_table(shown, 'ledger')}\n````\n"
    return page


def _source(claim: Mapping[str, Any]) -> str:
    named = claim["source"]
    return named if " " in named else f"{{cite:t}}`{named}`"


def _table(lines: list[list[str]], kind: str) -> str:
    rows = "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )
    return f":::{{table}}\n:class: {kind}\n\n{rows}\n:::"


def values(notebooks: list[Path]) -> pd.DataFrame:
    """The values of all claims: chapter, key, place of the seed, value (to twelve digits)."""
    rows = [
        {"chapter": path.stem, "key": claim["key"], "place": place, "value": value}
        for path in notebooks
        for claim in claims(nbformat.read(path, as_version=4))
        for place, value in enumerate(claim["values"])
    ]
    return pd.DataFrame(rows, columns=["chapter", "key", "place", "value"])


def data_page(tables: Path) -> str:
    """The page data.md: every table with its rows, size and a link."""
    manifests = {
        chapter: json.loads((tables / chapter / MANIFEST).read_text(encoding="utf-8"))
        for chapter in settings.CHAPTERS
        if (tables / chapter / MANIFEST).exists()
    }
    page = DATA.format(compute=compute(manifests))
    for chapter, facts in manifests.items():
        stem = settings.CHAPTERS[chapter]
        hours = _hours(facts)
        says = described(chapter)
        page += f"\n## {title(ROOT / 'notebooks' / f'{stem}.ipynb')}\n\n"
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


def compute(manifests: Mapping[str, Mapping[str, Any]]) -> str:
    """What each chapter took: jobs, hours of one core, its longest job, as a table."""
    lines = [["Chapter", "jobs", "hours of one core", "longest job, minutes"], ["---"] * 4]
    for chapter, facts in manifests.items():
        name = title(ROOT / "notebooks" / f"{settings.CHAPTERS[chapter]}.ipynb").partition(":")[0]
        longest = max((job["seconds"] for job in facts["jobs"].values()), default=0.0) / 60
        lines.append([name, str(len(facts["jobs"])), f"{_hours(facts):.2f}", f"{longest:.1f}"])
    jobs = sum(len(facts["jobs"]) for facts in manifests.values())
    hours = sum(map(_hours, manifests.values()))
    lines.append(["all", str(jobs), f"{hours:.2f}", ""])
    return _table(lines, "tally")


def _hours(facts: Mapping[str, Any]) -> float:
    return float(sum(job["seconds"] for job in facts["jobs"].values()) / 3600)


def described(chapter: str) -> dict[str, str]:
    """What each table of a chapter holds, from the docstring of its `run`."""
    text = inspect.getdoc(settings.chapter_module(chapter).run) or ""
    entry = re.compile(r"^(\w+(?:, \w+)*): (.*?)(?=^\w+(?:, \w+)*: |\Z)", re.M | re.S)
    return {
        name: " ".join(words.split())
        for names, words in entry.findall(text)
        for name in names.split(", ")
    }


def title(path: Path) -> str:
    """The title of a notebook."""
    text: str = nbformat.read(path, as_version=4).cells[0].source
    return next(line[2:] for line in text.splitlines() if line.startswith("# "))
