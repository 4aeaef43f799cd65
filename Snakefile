"""The graph of the study: job → tables → notebook → book.

    snakemake --cores 2 --config profile=smoke     # or thesis
    snakemake --cores 2 --config profile=record    # the book of book/notebooks; nothing is run

A job is made once for its arguments and the sources it depends on: its folder is named after them.
A notebook reads its tables, and runs again when they, its text, or what draws and tells changed.
"""

import os
import sys
from pathlib import Path

import yaml

sys.path.insert(0, os.getcwd())
PROFILE = config.get("profile", "smoke")
BUILD = f"build/{PROFILE}"
TABLES = config.get("tables", f"{BUILD}/tables")  # book/tables: those of the record, as they are
POOLED = bool(config.get("pooled"))  # a chapter's jobs in one pool of processes: for short ones
YAML = f"study/profiles/{PROFILE}.yml"
PYTHON = sys.executable
JUPYTER_BOOK = str(Path(sys.executable).with_name("jupyter-book"))
SOURCES = sorted(Path("notebooks").glob("*.ipynb"))
PACKAGE = sorted(
    str(path)
    for folder in ("ibcore", "study")
    for path in Path(folder).rglob("*")
    if path.suffix in {".py", ".mplstyle", ".txt"}
)
PAGES = sorted(
    str(page)
    for page in Path("book").rglob("*")
    if page.is_file()
    and page.parts[1] not in {"notebooks", "tables", "_build"}
    and page.name not in {"figures.md", "verdicts.md", "data.md"}
)
CHAPTERS, JOBS, KEYS = {}, {}, {}
if PROFILE == "record":
    EXECUTED = sorted(map(str, Path("book/notebooks").glob("*.ipynb")))
    SECTIONS = {}
else:
    from study import settings
    from study.jobs import plan
    from study.tables import committed

    try:
        SECTIONS = settings.sections(Path(YAML))
        CHAPTERS = {stem: name for name, stem in settings.CHAPTERS.items()}
        for chapter, stem in settings.CHAPTERS.items() if TABLES.startswith("build/") else ():
            jobs = plan(chapter, settings.make(chapter, SECTIONS.get(stem, {})))
            whole = POOLED or committed(chapter, jobs)
            JOBS[chapter] = [] if whole else [job.name for job in jobs]
            KEYS[chapter] = [job.name for job in jobs]
    except ValueError as error:
        raise WorkflowError(str(error))
    EXECUTED = [f"{BUILD}/notebooks/{source.name}" for source in SOURCES]

if not EXECUTED:
    raise WorkflowError(f"profile {PROFILE}: no notebooks")
if unknown := set(SECTIONS) - {source.stem for source in SOURCES}:
    raise WorkflowError(f"{YAML} names notebooks that don't exist: {sorted(unknown)}")


def tables_of(wildcards):
    """The manifest of a notebook's tables; none where it has no tables."""
    chapter = CHAPTERS.get(wildcards.stem)
    return [f"{TABLES}/{chapter}/manifest.json"] if chapter else []


rule all:
    input:
        f"{BUILD}/book/_build/html/index.html",


rule notebooks:
    input:
        EXECUTED,


rule tables:
    input:
        [f"{TABLES}/{chapter}/manifest.json" for chapter in JOBS],


rule job:
    output:
        "build/jobs/{chapter}/{name}/manifest.json",
    threads: 1
    shell:
        "OMP_NUM_THREADS={threads} {PYTHON:q} -m study.jobs"
        " {wildcards.chapter} {wildcards.name} --profile {YAML}"


rule join:
    input:
        lambda wildcards: [
            f"build/jobs/{wildcards.chapter}/{name}/manifest.json"
            for name in JOBS[wildcards.chapter]
        ],
    output:
        f"{BUILD}/tables/{{chapter}}/manifest.json",
    params:
        jobs=lambda wildcards: KEYS[wildcards.chapter],
        cores=workflow.cores if POOLED else 0,
    threads: workflow.cores if POOLED else 1
    shell:
        "{PYTHON:q} -m study.tables {wildcards.chapter} {BUILD}/tables/{wildcards.chapter}"
        " --profile {YAML} --cores {params.cores}"


rule notebook:
    input:
        tables_of,
        notebook="notebooks/{stem}.ipynb",
        package=PACKAGE,
        claims=lambda wildcards: list(Path("study/claims").glob(f"{wildcards.stem[3:]}.yml")),
        runner="pipeline/run.py",
    output:
        f"{BUILD}/notebooks/{{stem}}.ipynb",
    params:
        section=lambda wildcards: SECTIONS.get(wildcards.stem),
    threads: 1
    shell:
        "OMP_NUM_THREADS={threads} STUDY_TABLES={TABLES:q} {PYTHON:q} -m pipeline.run"
        " {input.notebook:q} {output:q} --profile {YAML}"


rule book:
    input:
        executed=EXECUTED,
        pages=PAGES,
        package=PACKAGE,
        tables=[f"{TABLES}/{chapter}/manifest.json" for chapter in CHAPTERS.values()],
        pipeline=sorted(map(str, Path("pipeline").glob("*.py"))),
    output:
        f"{BUILD}/book/_build/html/index.html",
    params:
        tables="book/tables" if PROFILE == "record" else TABLES,
    shell:
        "{PYTHON:q} -m pipeline.assemble {input.executed:q} {BUILD}/book --tables {params.tables:q}"
        " && {JUPYTER_BOOK:q} build -q -n -W --keep-going {BUILD}/book"
        " && {PYTHON:q} -m pipeline.offline {BUILD}/book/_build/html"


# Asked for by name: these two write into the sources, what is then committed.
rule record:
    input:
        EXECUTED,
    shell:
        "{PYTHON:q} -m pipeline.assemble --record {input:q} book --tables {TABLES:q}"


rule reference:
    input:
        EXECUTED,
    shell:
        "{PYTHON:q} -m pipeline.assemble --reference {input:q} tests/reference --tables {TABLES:q}"
