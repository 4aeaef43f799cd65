"""Jobs: what takes long, each made once, kept in a folder of its own, and never half written."""

import argparse
import errno
import hashlib
import json
import os
import platform
import shutil
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import torch

from study import scratch, settings
from study.closure import ROOT, fingerprint

FORMAT = 1  # of the manifest
MANIFEST = "manifest.json"
_SWAP = 0.05  # seconds that a folder may be away while another takes its place
PACKAGES = ("numpy", "pandas", "scipy", "torch", "torch-geometric")


@dataclass(frozen=True)
class Job:
    """One piece of a chapter's computation.

    Args:
        chapter: name of its module in `study`.
        id: name of the job, once in the chapter.
        arguments: what `run` of the module takes; JSON can hold it.
    """

    chapter: str
    id: str
    arguments: Mapping[str, Any]

    @property
    def key(self) -> str:
        """SHA-256 of the arguments and of the sources: another job whenever one of them changes."""
        given = json.dumps([self.chapter, self.id, self.arguments], sort_keys=True)
        return hashlib.sha256(f"{given} {fingerprint(self.chapter)}".encode()).hexdigest()

    @property
    def name(self) -> str:
        """Name of the job's folder."""
        return f"{self.id}-{self.key[:12]}"

    @property
    def folder(self) -> Path:
        """Where its tables are kept: in STUDY_JOBS, else in build/jobs of the project."""
        store = Path(os.environ.get("STUDY_JOBS", ROOT / "build" / "jobs"))
        return store / self.chapter / self.name


def plan(chapter: str, chosen: Any) -> list[Job]:
    """Return the jobs that a chapter's settings ask for, in the order of their rows."""
    found = settings.chapter_module(chapter).jobs(settings.resolved(chosen))
    return [Job(chapter, name, json.loads(json.dumps(given))) for name, given in found.items()]


def make(job: Job) -> Path:
    """Return the job's folder; where there is no whole one, run the job and write it.

    Raises:
        OSError: the folder can't be written; it is named.
        RuntimeError: the job failed, with its name and the reason.
    """
    if is_made(job):
        return job.folder
    with scratch.offered(job.folder.with_name(f".{job.name}.kept")):
        write_set(job.folder, *_made(job))
    return job.folder


def _made(job: Job) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Return a job's tables, and what its manifest says of it."""
    started = time.perf_counter()
    try:
        tables = settings.chapter_module(job.chapter).run(dict(job.arguments))
    except (ArithmeticError, RuntimeError, ValueError) as error:
        raise RuntimeError(
            f"job {job.id} of {job.chapter} failed: {type(error).__name__}: {error}\n"
            f"  its arguments: {json.dumps(job.arguments)}"
        ) from error
    return tables, {
        "chapter": job.chapter,
        "id": job.id,
        "arguments": job.arguments,
        "key": job.key,
        "sources": fingerprint(job.chapter),
        "seconds": round(time.perf_counter() - started, 1),
        **machine(),
    }


def is_made(job: Job) -> bool:
    """Return whether the job's folder is whole; what is damaged is said and counts as missing."""
    if not (job.folder / MANIFEST).exists():
        return False
    for again in (True, False):
        try:
            read_set(job.folder)
            return True
        except (OSError, ValueError) as error:
            if again:
                time.sleep(_SWAP)  # another process may be putting its own in this place
            elif (job.folder / MANIFEST).exists():
                warnings.warn(f"{error}; the job is made again", stacklevel=2)
    return False


def write_set(folder: Path, tables: Mapping[str, pd.DataFrame], facts: Mapping[str, Any]) -> None:
    """Write tables and a manifest with their hashes into a folder, whole or not at all.

    A folder that is there is replaced once the new one is whole.

    Raises:
        OSError: it can't be written, as on a full disk; it names the folder, and nothing is left.
    """
    part = beside(folder)
    try:
        part.mkdir(parents=True)
        listed = {}
        for name, table in tables.items():
            path = part / f"{name}.parquet"
            table.to_parquet(path, index=False, compression="zstd", write_page_checksum=True)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            listed[name] = {"rows": len(table), "sha256": digest}
        text = json.dumps({"format": FORMAT, **facts, "tables": listed}, indent=1, sort_keys=True)
        (part / MANIFEST).write_text(text + "\n", encoding="utf-8")
        swap(part, folder)
    except OSError as error:
        raise OSError(
            error.errno, f"{error.strerror or error}: nothing was written", str(folder)
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def beside(folder: Path) -> Path:
    """Return a hidden name beside a folder, to be written and then put in its place."""
    return folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.part")


def swap(new: Path, folder: Path) -> None:
    """Put a whole folder in the place of an older one, which goes only then.

    Where another process does the same at once, the last one stays.
    """
    for attempt in range(100):
        old = beside(folder)
        with suppress(FileNotFoundError):
            folder.replace(old)
        try:
            new.replace(folder)
            return
        except OSError as error:
            with suppress(OSError):  # another one may have put its own there meanwhile
                old.replace(folder)
            if attempt == 99 or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        finally:
            shutil.rmtree(old, ignore_errors=True)


def read_set(folder: Path) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Return the tables and the manifest that `write_set` wrote.

    Raises:
        FileNotFoundError: there is no manifest, or a table of it is missing.
        ValueError: a manifest of another form, or a table that isn't the one it lists.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"no tables in {folder}: it has no {MANIFEST}")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        listed = facts["tables"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is damaged: it is no manifest") from None
    if facts.get("format") != FORMAT:
        raise ValueError(
            f"{path} has the form {facts.get('format')}, and this version reads {FORMAT}: "
            "make the tables anew, or take the version that wrote them"
        )
    tables = {}
    for name, entry in listed:
        file = folder / f"{name}.parquet"
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing, and {MANIFEST} lists it")
        if hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
            raise ValueError(f"{file} is damaged: it isn't the table that {MANIFEST} lists")
        tables[name] = pd.read_parquet(file)
    return tables, facts


def machine() -> dict[str, Any]:
    """Return what numbers may hang on: versions, processor and the kernels that torch chose.

    The model counts: with the same instructions, libraries choose their kernels by it.
    """
    return {
        "versions": {name: version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "processor": {
            "machine": platform.machine(),
            "model": processor_model(),
            "kernels": torch.backends.cpu.get_cpu_capability(),
            "device": "cuda" if torch.cuda.is_available() else "cpu",
        },
    }


def processor_model(listing: Path = Path("/proc/cpuinfo")) -> str:
    """Return maker, family and model of the processor; what Python says where no listing does."""
    try:
        lines = listing.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    names = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")  # the last on ARM
    named = [found[name] for name in names if name in found]
    return " ".join(named) or platform.processor()


def main(given: list[str] | None = None) -> int:
    """Make one job from the command line; 0, or 1 with one message where something is wrong."""
    parser = argparse.ArgumentParser(prog="study.jobs", description=__doc__.splitlines()[0])
    parser.add_argument("chapter")
    parser.add_argument("name", help="name of the job's folder, as the graph has it")
    parser.add_argument("--profile", type=Path, required=True)
    options = parser.parse_args(given)
    try:
        jobs = plan(options.chapter, settings.profile(options.chapter, options.profile))
        by_name = {job.name: job for job in jobs}
        if options.name not in by_name:
            raise ValueError(f"no job {options.name}: the sources or the profile have changed")
        make(by_name[options.name])
    except (OSError, RuntimeError, ValueError) as error:
        print(f"\n{error}\n", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
