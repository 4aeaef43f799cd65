"""What a chapter's numbers depend on: the sources that its module imports, and their hash."""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ibcore", "study")


@cache
def fingerprint(chapter: str) -> str:
    """Return the SHA-256 of a chapter's sources and of the versions they were tested with."""
    found = hashlib.sha256()
    for path in [*sources(chapter), ROOT / "constraints.txt"]:
        content = path.read_bytes()
        found.update(f"{path.relative_to(ROOT).as_posix()} {len(content)}\n".encode() + content)
    return found.hexdigest()


def sources(chapter: str) -> list[Path]:
    """Return the files of `study.<chapter>` and of all it imports from here, sorted.

    A package's `__init__` counts where a name is taken from it. Text files beside a module, such
    as the hashes of the data, count with it.
    """
    todo, seen = [f"study.{chapter}"], set[Path]()
    while todo:
        path = _file(todo.pop())
        if path is None or path in seen:
            continue
        seen.add(path)
        todo += _imports(path)
    texts = {text for path in seen for text in path.parent.glob("*.txt")}
    return sorted(seen | texts)


def _file(module: str) -> Path | None:
    """Return the file of a module of ours, or None for a name that is no module."""
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(path: Path) -> Iterator[str]:
    """Yield the modules of ours that a file imports, as its import statements name them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in inner if _file(name)]
            names = modules if len(modules) == len(inner) else [node.module, *modules]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in PACKAGES)
