"""Where a job may keep what it has so far, so that one that was killed goes on."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_OFFERED: ContextVar[Path | None] = ContextVar("offered", default=None)


@contextmanager
def offered(folder: Path) -> Iterator[None]:
    """Offer a folder to what runs within; it goes once all went well, and stays where it didn't."""
    token = _OFFERED.set(folder)
    try:
        yield
    finally:
        _OFFERED.reset(token)
    with _held(folder) as mine:
        if mine:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def kept() -> Iterator[Path]:
    """Yield the folder that is offered; a temporary one where none is, or another run holds it."""
    folder = _OFFERED.get()
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as other, _held(folder) as mine:
        yield folder if folder and mine else Path(other)


@contextmanager
def _held(folder: Path | None) -> Iterator[bool]:
    """Yield whether this run alone holds a folder; a run that is killed lets go of it."""
    if folder is None or not folder.is_dir():
        yield False
        return
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
