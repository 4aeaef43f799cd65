"""Printed outputs compared as numbers: what another CPU rounds differently is no difference."""

import re

DECIMAL = re.compile(r"(?<![\w.])[-+]?\d+\.\d+(?:e[-+]?\d+)?(?![\w.])")
WHOLE = re.compile(r"(?<![\w.])\d+(?![\w.])")


class Printed(str):
    """Text that equals another where words agree and numbers are close.

    Two decimals agree within one unit of the last digit that is shown: a value between two of them
    is rounded up on one CPU and down on another. White space doesn't count, as a sign shifts it.
    Whole numbers must agree, for they are counts, shapes and seeds.

    Args:
        text: what a cell printed.
        tolerance: more that two decimals may differ by; what a trained critic needs.
        counts: what whole numbers may differ by.
    """

    tolerance: float
    counts: int

    def __new__(cls, text: str, tolerance: float = 0.0, counts: int = 0) -> "Printed":
        """Return the text, which knows how close another must be."""
        found = super().__new__(cls, text)
        found.tolerance, found.counts = tolerance, counts
        return found

    def __eq__(self, other: object) -> bool:
        """Whether the other text says the same."""
        pattern = re.compile(f"{DECIMAL.pattern}|{WHOLE.pattern}") if self.counts else DECIMAL
        words, numbers = _parts(self, pattern)
        other_words, other_numbers = _parts(str(other), pattern)
        return words == other_words and all(map(self._close, numbers, other_numbers))

    def __ne__(self, other: object) -> bool:
        """Whether the other text says something else."""
        return not self == other

    __hash__ = str.__hash__

    def _close(self, a: str, b: str) -> bool:
        if not {".", "e"} & {*a, *b}:
            return abs(int(a) - int(b)) <= self.counts
        return abs(float(a) - float(b)) <= max(self.tolerance, 1.001 * max(_unit(a), _unit(b)))


def _parts(text: str, pattern: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """Return the words between the numbers, without white space and rulers, and the numbers."""
    return [re.sub(r"[\s-]+", "", part) for part in pattern.split(text)], pattern.findall(text)


def _unit(number: str) -> float:
    """Return the worth of the last digit: 0.01 for 1.25, 1000 for 1.2e4."""
    digits, _, power = number.partition("e")
    return float(10.0 ** (int(power or 0) - len(digits.partition(".")[2])))
