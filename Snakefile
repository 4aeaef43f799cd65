"""The graph of the study: notebook × profile → executed copy → book.

    snakemake --cores 2 --config profile=smoke     # or thesis
    snakemake --cores 2 --config profile=record    # the book of book/notebooks; nothing is run

A notebook runs again when its source, its section of the profile or anything in ibcore/ changed.
"""

import sys
from pathlib import Path

import yaml

PROFILE = config.get("profile", "smoke")
BUILD = f"build/{PROFILE}"
PYTHON = sys.executable
JUPYTER_BOOK = str(Path(sys.executable).with_name("jupyter-book"))
SOURCES = sorted(Path("notebooks").glob("*.ipynb"))
PACKAGE = sorted(
    str(path) for path in Path("ibcore").rglob("*") if path.suffix in {".py", ".mplstyle", ".txt"}
)
PAGES = sorted(
    str(page)
    for page in Path("book").rglob("*")
    if page.is_file() and page.parts[1] not in {"notebooks", "_build"} and page.name != "figures.md"
)

if PROFILE == "record":
    SECTIONS = {}
    EXECUTED = sorted(map(str, Path("book/notebooks").glob("*.ipynb")))
else:
    SECTIONS = yaml.safe_load(Path(f"profiles/{PROFILE}.yml").read_text()) or {}
    EXECUTED = [f"{BUILD}/notebooks/{source.name}" for source in SOURCES]

if not EXECUTED:
    raise WorkflowError(f"profile {PROFILE}: no notebooks")
if unknown := set(SECTIONS) - {source.stem for source in SOURCES}:
    raise WorkflowError(f"profiles/{PROFILE}.yml names notebooks that don't exist: {sorted(unknown)}")



rule all:
    input:
        f"{BUILD}/book/_build/html/index.html",


rule notebooks:
    input:
        EXECUTED,


rule notebook:
    input:
        notebook="notebooks/{stem}.ipynb",
        package=PACKAGE,
        runner="pipeline/run.py",
    output:
        f"{BUILD}/notebooks/{{stem}}.ipynb",
    params:
        section=lambda wildcards: SECTIONS.get(wildcards.stem),
    threads: 1 # small networks gain nothing from a second thread; two notebooks at once do
    shell:
        "OMP_NUM_THREADS={threads} {PYTHON:q} -m pipeline.run"
        " {input.notebook:q} {output:q} --profile profiles/{PROFILE}.yml"


rule book:
    input:
        executed=EXECUTED,
        pages=PAGES,
        package=PACKAGE,
        pipeline=["pipeline/assemble.py", "pipeline/offline.py"],
    output:
        f"{BUILD}/book/_build/html/index.html",
    shell:
        "{PYTHON:q} -m pipeline.assemble {input.executed:q} {BUILD}/book"
        " && {JUPYTER_BOOK:q} build -q -n -W --keep-going {BUILD}/book"
        " && {PYTHON:q} -m pipeline.offline {BUILD}/book/_build/html"


# Asked for by name: these two write into the sources, what is then committed.
rule record:
    input:
        EXECUTED,
    shell:
        "{PYTHON:q} -m pipeline.assemble --record {input:q} book"


rule reference:
    input:
        EXECUTED,
    shell:
        "rm -f tests/reference/*.ipynb && cp {input:q} tests/reference/"
