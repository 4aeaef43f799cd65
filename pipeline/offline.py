"""Check that a built book reads without a network.

    python -m pipeline.offline build/smoke/book/_build/html

Links that a reader may follow are fine; what a page loads by itself must lie in the book.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
POINTERS = {"canonical", "next", "prev", "search", "author", "license"}
REMOTE = re.compile(r"\s*(?:https?:)?//", re.IGNORECASE)
STYLE = re.compile(r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)


class _Loads(HTMLParser):
    """Collects the addresses that a page loads from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.remote: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        address = values.get(LOADS.get(tag, "")) or ""
        pointer = tag == "link" and POINTERS & set((values.get("rel") or "").split())
        if REMOTE.match(address) and not pointer:
            self.remote.append(f"<{tag}> {address}")


def remote_loads(html: Path) -> list[str]:
    """What the pages and style sheets of a built book load from elsewhere, one line each."""
    found = []
    for page in sorted(html.rglob("*.html")):
        parser = _Loads()
        parser.feed(page.read_text(encoding="utf-8"))
        found += [f"{page.relative_to(html)}: {load}" for load in parser.remote]
    for sheet in sorted(html.rglob("*.css")):
        addresses = STYLE.findall(sheet.read_text(encoding="utf-8"))
        found += [f"{sheet.relative_to(html)}: {address}" for address in addresses]
    return found


def main(arguments: list[str]) -> int:
    """Check from the command line; 1 and a list where a page needs a network."""
    found = remote_loads(Path(arguments[0]))
    if found:
        print("The book would load from the network:", *found, sep="\n  ", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
