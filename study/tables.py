"""The tables of a chapter: read where they are, made where they are missing."""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from study import settings as chapters
from study.closure import ROOT, fingerprint
from study.jobs import MANIFEST, Job, beside, is_made, make, plan, read_set, swap, write_set
from study.verify import is_stale

RECORD = "book/tables"  # the sets that are committed as the record
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def tables(chapter: str, settings: Any) -> dict[str, pd.DataFrame]:
    """Return a chapter's tables: those of its jobs, one below the other, with a column `job`.

    With STUDY_TABLES, the folder of committed sets, they are read from there and nothing is made.
    Else a committed set is read if it is of these settings and was made, or verified, with today's
    sources, and what is missing otherwise is made, on all cores, with a progress bar.

    Args:
        chapter: name of the module in `study`.
        settings: its `Settings`.
    Raises:
        ValueError: a set is damaged, or is one of other settings.
        RuntimeError: a job failed.
    """
    jobs = plan(chapter, settings)
    if folder := os.environ.get("STUDY_TABLES"):
        return _asked(Path(folder) / chapter, jobs)
    if kept := committed(chapter, jobs):
        return read_set(kept)[0]
    make_all(jobs)
    return joined(jobs)[0]


def make_all(jobs: Sequence[Job], cores: int | None = None) -> None:
    """Make the jobs that are missing, one thread a job.

    Raises:
        RuntimeError: a job failed or was killed; those that were finished are kept.
    """
    missing = [job for job in jobs if not is_made(job)]
    workers = min(cores or os.cpu_count() or 1, len(missing))
    if not missing:
        return
    spawn = get_context("spawn")
    with _one_thread(), ProcessPoolExecutor(workers, spawn, _end_with_parent) as pool:
        running = {pool.submit(make, job): job for job in missing}
        try:
            done = as_completed(running)
            for job in tqdm(done, missing[0].chapter, total=len(missing), unit="job"):
                job.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a job was killed, perhaps for want of memory; what was finished is kept: run the "
                "same again"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this worker when the process that started it is killed: it would go on with its jobs."""
    parent = parent_process()

    def watch() -> None:
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def joined(jobs: Sequence[Job]) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Return the tables of jobs that are made, and what their manifests say of each job."""
    parts: dict[str, list[pd.DataFrame]] = {}
    facts = {}
    for job in jobs:
        found, said = read_set(job.folder)
        facts[job.id] = {k: v for k, v in said.items() if k not in ("id", "chapter", "format")}
        for name, table in found.items():
            parts.setdefault(name, []).append(table.assign(job=job.id))
    return {name: pd.concat(part, ignore_index=True) for name, part in parts.items()}, facts


def committed(chapter: str, jobs: Sequence[Job]) -> Path | None:
    """Return the record's set if it is of these jobs and of today's sources; else None.

    Today's are those that made it, or those that found its numbers again, see `study.verify`.
    """
    folder, asked = ROOT / RECORD / chapter, {job.id: job.arguments for job in jobs}
    return folder if _arguments(folder) == asked and not is_stale(folder) else None


def write(chapter: str, jobs: Sequence[Job], folder: Path) -> None:
    """Write a chapter's tables and their manifest into a folder: a committed set, or of its jobs.

    Raises:
        ValueError: a job isn't made, or the set is damaged.
        OSError: the folder can't be written.
    """
    if kept := committed(chapter, jobs):
        read_set(kept)
        part = beside(folder)
        shutil.copytree(kept, part)
        swap(part, folder)
        return
    found, facts = joined(jobs)
    said = {"chapter": chapter, "sources": fingerprint(chapter), "commit": commit(), "jobs": facts}
    claims = ROOT / "study" / "claims" / f"{chapter}.yml"
    if claims.is_file():
        said["claims"] = hashlib.sha256(claims.read_bytes()).hexdigest()
    write_set(folder, found, said)


def commit() -> str:
    """Return the commit of the sources that numbers depend on; "+" says that they were changed."""
    paths = ["ibcore", "study", "constraints.txt"]
    try:
        head, changed = (
            subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True)
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", *paths])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _asked(folder: Path, jobs: Sequence[Job]) -> dict[str, pd.DataFrame]:
    found, facts = read_set(folder)
    asked = {job.id: job.arguments for job in jobs}
    has = {name: job["arguments"] for name, job in facts["jobs"].items()}
    if asked != has:
        differ = sorted(n for n in {*asked, *has} if asked.get(n) != has.get(n))
        raise ValueError(
            f"{folder} holds tables of other settings: the jobs {', '.join(differ[:5])} differ. "
            "Unset STUDY_TABLES to have them made."
        )
    return found


def _arguments(folder: Path) -> dict[str, Any]:
    """Return the arguments of the jobs of a committed set; none where there is no such set."""
    try:
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return {name: job["arguments"] for name, job in facts["jobs"].items()}
    except (OSError, ValueError, KeyError):
        return {}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Give one thread to each process that is started within."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def main(given: list[str] | None = None) -> int:
    """Write a chapter's tables from the command line; 0, or 1 with one message."""
    parser = argparse.ArgumentParser(prog="study.tables", description=__doc__.splitlines()[0])
    parser.add_argument("chapter")
    parser.add_argument("folder", type=Path, help="where the tables go")
    parser.add_argument("--profile", type=Path, required=True)
    parser.add_argument("--cores", type=int, default=0, help="make what is missing on so many")
    options = parser.parse_args(given)
    try:
        jobs = plan(options.chapter, chapters.profile(options.chapter, options.profile))
        if options.cores and not committed(options.chapter, jobs):
            make_all(jobs, options.cores)
        write(options.chapter, jobs, options.folder)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"\n{error}\n", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
