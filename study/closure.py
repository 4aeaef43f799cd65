"""What a chapter's numbers depend on: the sources that its module imports, and their hash."""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ibcore", "study")
PINNED_AS = {"sklearn": "scikit-learn"}  # import names that differ from the distribution's


@cache
def fingerprint(chapter: str) -> str:
    """Return the SHA-256 of a chapter's sources and of the versions of what they import."""
    found = hashlib.sha256()
    for path in sources(chapter):
        content = path.read_bytes()
        found.update(f"{path.relative_to(ROOT).as_posix()} {len(content)}\n".encode() + content)
    found.update("\n".join(pins(chapter)).encode())
    return found.hexdigest()


def pins(chapter: str) -> list[str]:
    """Return the lines of `constraints.txt` for the packages that a chapter's sources import."""
    files = [path for path in sources(chapter) if path.suffix == ".py"]
    roots = {name.split(".")[0] for path in files for name in _named(path)}
    wanted = {PINNED_AS.get(name, name).replace("_", "-").lower() for name in roots}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.partition("==")[0].replace("_", "-").lower() in wanted]


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
    """Yield the modules of ours that a file imports."""
    return (name for name in _named(path) if name.split(".")[0] in PACKAGES)


def _named(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports, as its import statements name them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in inner if _file(name)]
            names = modules if len(modules) == len(inner) else [node.module, *modules]
        else:
            continue
        yield from names
