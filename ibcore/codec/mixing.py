"""Whole numbers to bytes and back: adaptive models of each decision, mixed, an arithmetic coder.

All state is whole numbers, so that a file is the same on every machine. Ready-made coders
(`constriction`) want frequencies of a whole alphabet; here each bit has a probability of its own
that the last bit has just changed, and the coder is the ten lines of `_narrow`.
"""
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-redef, no-any-return"

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

try:
    from numba import njit
except ImportError:  # the same functions, a hundred times slower: files stay readable

    def njit(**_: Any) -> Callable[[Any], Any]:
        """Return functions as they are."""
        return lambda function: function


CONTEXTS = 8  # models of a decision; a constant is mixed in, too
SLOTS = 256  # what a model tells apart
POSITIONS = 48  # decisions of a number: is it 0, its sign, is it above 1, ..., 14, its logarithm
UNARY = 14  # magnitudes above are told by their logarithm and bits
LARGEST = 2**30  # magnitude
LIMIT = 511  # a model's memory, in decisions
RATE = 7  # of the mixer's learning, in 2⁻²⁰
FEWEST_BITS = 1 / 1500  # that a decision costs: −log₂(65504/65536), rounded down
# The trellis of dependent levels: what node comes after each, by whether the number told is odd.
# At even nodes a level is twice the number; at odd ones it is 1 nearer to 0, if it is not 0.
NEXT = np.array([[0, 2], [5, 7], [1, 3], [6, 4], [2, 0], [4, 6], [3, 1], [7, 5]])
_KNOTS = (
    22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4972, 7812, 11955, 17625, 24743, 32768,
)  # fmt: skip
_BOUNDS = np.array([2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 768], np.int64)


def _squash() -> NDArray[np.int64]:
    """Return about 2¹⁶/(1 + e^(−x/256)) for x = −2048, ..., 2047: lines between 33 knots."""
    table = np.array([*_KNOTS, *(65536 - knot for knot in _KNOTS[-2::-1])], np.int64)
    low, part = np.arange(4096) >> 7, np.arange(4096) & 127
    return np.clip((table[low] * (128 - part) + table[low + 1] * part + 64) >> 7, 32, 65504)


_SQUASH = _squash()
_STRETCH = np.searchsorted(_SQUASH, np.arange(4096) * 16 + 8).clip(1, 4095) - 2048
_DELTA = np.array([131072 // (2 * seen + 3) for seen in range(LIMIT + 1)], np.int64)
_BITS = -np.log2((np.arange(4096) + 0.5) / 4096)  # for reports alone


class Coder(NamedTuple):
    """What the coder is told of a matrix beside its numbers.

    Args:
        columns: numbers a row.
        period: the number so many columns before is a context; 0: none is.
        offset: contexts see magnitudes of number plus offset.
        dependent: whether the numbers are levels that follow the trellis `NEXT`.
    """

    columns: int
    period: int = 0
    offset: int = 0
    dependent: bool = False


def encode(values: NDArray, coder: Coder, most: int) -> tuple[bytes, NDArray] | None:
    """Return the bytes of a matrix, and the bits of its mask, signs and magnitudes.

    Args:
        values: whole numbers up to `LARGEST`, row by row, shape (n,).
        coder: the rows' length and contexts.
        most: bytes that it may take; None is returned where it takes more, and where the numbers
            leave the trellis.
    """
    data, spent = np.zeros(most, np.uint8), np.zeros(3)
    used = _code(values.astype(np.int32), *coder, data, False, spent)
    return None if used < 0 else (data[:used].tobytes(), spent)


def decode(data: bytes, count: int, coder: Coder) -> NDArray:
    """Return `count` whole numbers, row by row, int32; any bytes are some numbers."""
    values = np.zeros(count, np.int32)
    _code(values, *coder, np.frombuffer(bytearray(data), np.uint8), True, np.zeros(3))
    return values


def encode_bytes(values: NDArray, contexts: NDArray, depth: int, most: int) -> bytes | None:
    """Return bytes of which the first `depth` bits are modelled, given a context each.

    Args:
        values: shape (n,), uint8.
        contexts: shape (n,), uint8, 0 to 15.
        depth: bits with models, 1 to 8; the others are taken as random.
        most: bytes that it may take; None is returned where it takes more.
    """
    data = np.zeros(most, np.uint8)
    used = _code_bytes(values, contexts, depth, data, False)
    return None if used < 0 else data[:used].tobytes()


def decode_bytes(data: bytes, contexts: NDArray, depth: int) -> NDArray:
    """Return the bytes of `encode_bytes`, uint8."""
    values = np.zeros(len(contexts), np.uint8)
    _code_bytes(values, contexts, depth, np.frombuffer(bytearray(data), np.uint8), True)
    return values


def repeats(values: NDArray, columns: int) -> int:
    """Return after how many columns magnitudes are most alike again, 3 to 64; 0 if they aren't."""
    some = np.abs(values[: 256 * columns].reshape(-1, columns)).clip(max=15).astype(np.float32)
    if columns < 8 or not len(some):
        return 0
    spectrum = np.abs(np.fft.rfft(some - some.mean(), 2 * columns)) ** 2
    alike = np.fft.irfft(spectrum.mean(0))[: min(66, columns)]
    peaks = [k for k in range(3, len(alike) - 1) if alike[k - 1] < alike[k] >= alike[k + 1]]
    best = max(peaks, key=lambda k: alike[k], default=0)
    return best if best and alike[best] > 0.02 * alike[0] else 0


@njit(cache=True, forceinline=True)
def _shift(low, data, position):
    """Write the top byte of `low`, with its carry; return the rest."""
    if low >= 1 << 32:
        while data[position - 1] == 255:
            position -= 1
            data[position] = 0
        data[position - 1] += 1
    return low & 0xFFFFFFFF


@njit(cache=True, forceinline=True)
def _narrow(bit, p, decoding, state, data):
    """Code one bit that is 1 with probability p / 2¹⁶; state: low or code, range, position."""
    bound = (state[1] >> 16) * p
    if decoding:
        bit = 1 if state[0] < bound else 0
    if bit:
        state[1] = bound
    else:
        state[1] -= bound
        state[0] += -bound if decoding else bound
    while state[1] < 1 << 24:
        state[1] <<= 8
        position = state[2]
        state[2] += 1
        if decoding:
            state[0] = state[0] << 8 | (data[position] if position < len(data) else 0)
        elif position < len(data):
            low = _shift(state[0], data, position)
            data[position] = low >> 24
            state[0] = (low & 0xFFFFFF) << 8
    return bit


@njit(cache=True)
def _start(data, decoding):
    """Return the coder's state before the first bit."""
    state = np.zeros(3, np.int64)
    state[1] = 0xFFFFFFFF
    if decoding:
        for i in range(4):
            state[0] = state[0] << 8 | (data[i] if i < len(data) else 0)
        state[2] = 4
    return state


@njit(cache=True)
def _finish(state, data, decoding):
    """Write one more byte, which settles the last bits; return how many there are, or −1."""
    if decoding:
        return 0
    if state[2] >= len(data):
        return -1
    low = _shift((state[0] + state[1] - 1) & ~0xFFFFFF, data, state[2])
    data[state[2]] = low >> 24
    return state[2] + 1


@njit(cache=True, forceinline=True)
def _decide(bit, position, second, decoding, state, data, bases, table, w, x, spent):
    """Code one decision: mix what the models say, code, and teach models and mixer."""
    first, other = position * 16, 1024 + second * 16
    dot = (w[first + CONTEXTS] + w[other + CONTEXTS]) * x[CONTEXTS]
    for i in range(CONTEXTS):
        entry = table[bases[i] + position]
        x[i] = _STRETCH[entry >> 19] if entry & 511 else 0
        dot += (w[first + i] + w[other + i]) * x[i]
    mixed = _SQUASH[min(max(dot >> 16, -2047), 2047) + 2048]
    bit = _narrow(bit, mixed, decoding, state, data)
    if not decoding:
        spent[min(position, 2)] += _BITS[(mixed if bit else 65536 - mixed) >> 4]
    error = ((bit << 16) - mixed) * RATE
    for i in range(CONTEXTS + 1):
        change = (x[i] * error + (1 << 19)) >> 20
        w[first + i] += change
        w[other + i] += change
    for i in range(CONTEXTS):
        entry = table[bases[i] + position]
        seen = entry & 511
        chance = entry >> 9 if seen else mixed << 6  # a new slot starts from what the others say
        chance += (((bit << 22) - chance) * _DELTA[seen]) >> 16
        table[bases[i] + position] = chance << 9 | min(seen + 1, LIMIT)
    return bit


@njit(cache=True, forceinline=True)
def _level(value):
    """Return a coarse logarithm, 0 to 15."""
    level = 0
    while level < 15 and value >= _BOUNDS[level]:
        level += 1
    return level


@njit(cache=True, forceinline=True)
def _sign(value):
    return int(value > 0) - int(value < 0)


@njit(cache=True, forceinline=True)
def _look(values, index, row, column, columns, period, offset, node, down, across, bases):
    """Set the slot of each model from neighbours and node; return the level of those near."""
    a = values[index - 1] if column > 0 else 0
    b = values[index - 2] if column > 1 else 0
    c = values[index - columns] if row > 0 else 0
    cc = values[index - 2 * columns] if row > 1 else 0
    d = values[index - columns - 1] if row > 0 and column > 0 else 0
    e = values[index - columns + 1] if row > 0 and column < columns - 1 else 0
    f = values[index - period] if period and column >= period else 0
    ma, mb, mc = abs(a + offset), abs(b + offset), abs(c + offset)
    others = mb + abs(d + offset) + abs(e + offset) + abs(cc + offset)
    near, along = _level(2 * (2 * ma + 2 * mc + others)), _level(across)
    sides = _level((down[column] + 2 * down[column + 1] + down[column + 2]) >> 2)
    signs = 9 * _sign(a) + 3 * _sign(c) + _sign(f) + 13
    bases[0] = node
    bases[1] = min(ma, 15) * 16 + min(mb, 15)
    bases[2] = min(mc, 15) * 16 + min(abs(cc + offset), 15)
    bases[3] = sides * 16 + along
    bases[4] = _level(down[column + 1]) * 16 + near
    bases[5] = along * 16 + near
    bases[6] = min(abs(f + offset), 15) * 16 + sides
    bases[7] = min(ma, 2) * 81 + min(mc, 2) * 27 + signs
    for i in range(CONTEXTS):
        bases[i] = (SLOTS * (i + CONTEXTS * (node & 1)) + bases[i]) * POSITIONS
    return near


@njit(cache=True)
def _code(values, columns, period, offset, dependent, data, decoding, spent):
    """Code a matrix of whole numbers row by row; return the bytes used, −1 where they don't fit."""
    state = _start(data, decoding)
    table = np.zeros((1 + dependent) * CONTEXTS * SLOTS * POSITIONS, np.int32)
    w = np.full(2048, 9830, np.int64)  # 0.15 each: two sets, one by decision, one by neighbours
    w[CONTEXTS::16] = 0
    x = np.full(CONTEXTS + 1, 256, np.int64)
    bases = np.zeros(CONTEXTS, np.int64)
    down, across = (
        np.zeros(columns + 2, np.int64),
        0,
    )  # mean magnitudes of columns and row, in 64ths
    row = column = node = 0
    for index in range(len(values)):
        near = _look(values, index, row, column, columns, period, offset, node, down, across, bases)
        value = np.int64(values[index])
        size = abs(value)
        odd = node & 1
        if dependent:
            if not decoding and size and (size + odd) & 1:
                return -1
            size = (size + odd) >> 1
        count = 0
        if _decide(int(size > 0), 0, near, decoding, state, data, bases, table, w, x, spent):
            negative = _decide(
                int(value < 0), 1, 16 + near, decoding, state, data, bases, table, w, x, spent
            )
            count = 1
            while count <= UNARY and _decide(
                int(size > count), count + 1, 32 + near,
                decoding, state, data, bases, table, w, x, spent,
            ):  # fmt: skip
                count += 1
            if count > UNARY:
                rest, bits = size - UNARY, 0  # from 1
                while bits < 29 - dependent and _decide(
                    int(rest >> (bits + 1) > 0), UNARY + 2 + bits, 48 + near,
                    decoding, state, data, bases, table, w, x, spent,
                ):  # fmt: skip
                    bits += 1
                found = 1
                for place in range(bits - 1, -1, -1):
                    found = found << 1 | _narrow(rest >> place & 1, 32768, decoding, state, data)
                count = UNARY + found
                spent[2] += bits
            if decoding:
                level = 2 * count - odd if dependent else count
                values[index] = -level if negative else level
        if dependent:
            node = int(NEXT[node, count & 1])
        if not decoding and state[2] >= len(data):
            return -1
        size = min(abs(np.int64(values[index]) + offset), 65536) << 6
        down[column + 1] += (size - down[column + 1]) // min(row + 2, 64)
        across += (size - across) // 16
        column += 1
        if column == columns:
            column = 0
            row += 1
    return _finish(state, data, decoding)


@njit(cache=True)
def _code_bytes(values, contexts, depth, data, decoding):
    """Code bytes, the first bits by a model each of what came before and of the context."""
    state = _start(data, decoding)
    table = np.full(16 * 256, 1 << 30, np.int32)
    for index in range(len(values)):
        node, base, value = 1, (int(contexts[index]) & 15) * 256, int(values[index])
        for place in range(7, -1, -1):
            bit = value >> place & 1
            if place >= 8 - depth:
                entry = table[base + node]
                chance, seen = entry >> 9, entry & 511
                bit = _narrow(bit, min(max(chance >> 6, 32), 65504), decoding, state, data)
                chance += (((bit << 22) - chance) * _DELTA[seen]) >> 16
                table[base + node] = chance << 9 | min(seen + 1, LIMIT)
            else:
                bit = _narrow(bit, 32768, decoding, state, data)
            node = node << 1 | bit
        if decoding:
            values[index] = node & 255
        elif state[2] >= len(data):
            return -1
    return _finish(state, data, decoding)
