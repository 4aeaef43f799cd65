"""A tensor as a few streams of bytes, and back: whole numbers, steps, floats without loss."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibcore.codec.mixing import (
    LARGEST,
    Coder,
    decode,
    decode_bytes,
    encode,
    encode_bytes,
    repeats,
)

METHODS = ("raw", "whole", "float", "steps", "twin", "dependent")  # how a tensor is written
RAW, WHOLE, FLOAT, STEPS, TWIN, DEPENDENT = range(len(METHODS))
DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
EXPONENT = {torch.float64: 11, torch.float32: 8, torch.float16: 5, torch.bfloat16: 8}  # bits
DEPTHS = (0, 3, 8)  # bits of a byte that have models; 0: the bytes as they are
_OFFSET = 3  # of exponents' contexts: small ones lie below the most frequent
_GAIN = 320  # a model of mantissas has to save one byte in so many: it costs time
_SAMPLE = 1 << 16


class Steps(NamedTuple):
    """A tensor whose values are whole multiples of a step.

    Args:
        levels: the multiples, int64, in the tensor's shape.
        step: the size of one, a float32 above 0.
        dtype: of the values, a float.
        dependent: whether the levels, row by row, follow the trellis `mixing.NEXT`: each is told by
            about half its size.
    """

    levels: Tensor
    step: float
    dtype: torch.dtype
    dependent: bool = False

    def values(self) -> Tensor:
        """Return the tensor: products in float64, rounded to its dtype."""
        return (self.levels.double() * self.step).to(self.dtype)


class Coded(NamedTuple):
    """How a tensor is written, and its bytes.

    Args:
        method: `RAW`, `WHOLE`, `FLOAT`, `STEPS` or `DEPENDENT`.
        coder: of the whole numbers or exponents.
        center: the exponent that is written as 0.
        floor: what exponent 0 is taken for: one below the least of the others.
        depths: of the bytes of sign and mantissa, high to low.
        streams: bytes; whole numbers or exponents first, then each of the mantissas' bytes.
        spent: bits of mask, signs and magnitudes, where there are steps or whole numbers.
    """

    method: int
    coder: Coder = Coder(1)
    center: int = 0
    floor: int = 0
    depths: tuple[int, ...] = ()
    streams: tuple[bytes, ...] = ()
    spent: NDArray = np.zeros(3)  # never written to


def columns_of(shape: Sequence[int]) -> int:
    """Return the numbers a row: one output's weights, or all of a vector; at least 1."""
    count = math.prod(shape)
    return max(1, count // shape[0] if len(shape) > 1 and shape[0] else count)


def shrink(tensor: Tensor | Steps) -> Coded:
    """Return the shortest form of a tensor of which nothing is lost.

    Args:
        tensor: any shape, one of `DTYPES`, or `Steps`.
    Raises:
        ValueError: levels or exponents beyond the coder's range, levels that leave the trellis.
    """
    if isinstance(tensor, Steps):
        method = DEPENDENT if tensor.dependent else STEPS
        found = _numbers(tensor.levels, method, 16 * tensor.levels.numel() + 64)
        if found is None:
            follow = " and follow the trellis" if tensor.dependent else ""
            raise ValueError(f"levels must lie within ±{LARGEST}{follow}: take a larger step")
        return found
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    found = None
    if tensor.numel() and tensor.dtype in EXPONENT:
        found = _float(tensor)
    elif tensor.numel():
        found = _numbers(tensor, WHOLE, len(raw))
    if found is None or sum(map(len, found.streams)) >= len(raw):
        return Coded(RAW, streams=(raw,))
    return found


def restore_numbers(data: bytes, shape: Sequence[int], coder: Coder) -> Tensor:
    """Return the whole numbers of a stream, int32, in a shape."""
    count = math.prod(shape)
    return torch.from_numpy(decode(data, count, coder)).reshape(tuple(shape))


def restore_float(
    streams: Sequence[bytes], shape: Sequence[int], dtype: torch.dtype, coded: Coded
) -> Tensor:
    """Return a float tensor from its exponents and the bytes of its mantissas.

    Raises:
        ValueError: exponents that the dtype does not have.
    """
    count, size = math.prod(shape), dtype.itemsize
    exponents = decode(streams[0], count, coded.coder)
    contexts = _contexts(exponents)
    top, kind = EXPONENT[dtype], np.dtype(f"u{size}")
    exponents += coded.center
    if exponents.min() < coded.floor or exponents.max() >= 2**top:
        raise ValueError(f"it has exponents from {exponents.min()} to {exponents.max()}")
    exponents[exponents == coded.floor] = 0
    word = exponents.astype(kind) << kind.type(8 * size - top)
    for number, (depth, data) in enumerate(zip(coded.depths, streams[1:], strict=True)):
        plane = (
            decode_bytes(data, contexts, depth) if depth else np.frombuffer(data, np.uint8)
        ).astype(kind)
        left = 8 * size - top - 8 * (number + 1)
        word |= plane << kind.type(left) if left >= 0 else plane >> kind.type(-left)
    word = (word >> kind.type(1)) | (word << kind.type(8 * size - 1))
    return torch.from_numpy(word.view(np.uint8)).view(dtype).reshape(tuple(shape))


def planes_of(dtype: torch.dtype) -> int:
    """Return how many bytes sign and mantissa fill."""
    return -(-(8 * dtype.itemsize - EXPONENT[dtype]) // 8)


def _numbers(tensor: Tensor, method: int, most: int) -> Coded | None:
    values = tensor.detach().cpu().reshape(-1).to(torch.int64).numpy()
    if len(values) and max(-int(values.min()), int(values.max())) > LARGEST:
        return None
    columns = columns_of(tensor.shape)
    coder = Coder(columns, repeats(values, columns), dependent=method == DEPENDENT)
    found = encode(values, coder, most)
    return found and Coded(method, coder, streams=found[:1], spent=found[1])


def _float(tensor: Tensor) -> Coded | None:
    size, top = tensor.dtype.itemsize, EXPONENT[tensor.dtype]
    kind = np.dtype(f"u{size}")
    word = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().view(kind)
    word = (word << kind.type(1)) | (word >> kind.type(8 * size - 1))  # the sign goes last
    exponents = (word >> kind.type(8 * size - top)).astype(np.int32)
    floor = int(exponents[exponents > 0].min(initial=2**top)) - 1
    floor = 0 if floor == 2**top - 1 else floor
    np.maximum(exponents, floor, out=exponents)  # so that zeros are not far off
    center = int(np.bincount(exponents).argmax())
    exponents -= center
    columns = columns_of(tensor.shape)
    coder = Coder(columns, repeats(exponents + _OFFSET, columns), _OFFSET)
    first = encode(exponents, coder, tensor.numel() * size)
    if first is None:
        return None
    contexts, word = _contexts(exponents), word << kind.type(top)
    depths, streams = [], [first[0]]
    for number in range(planes_of(tensor.dtype)):
        plane = (word >> kind.type(8 * (size - 1 - number))).astype(np.uint8)
        depth, data = _plane(plane, contexts, tensor.numel() * size // _GAIN)
        depths.append(depth)
        streams.append(data)
    return Coded(FLOAT, coder, center, floor, tuple(depths), tuple(streams), first[1])


def _contexts(exponents: NDArray) -> NDArray:
    contexts: NDArray = np.clip(exponents + 8, 0, 15).astype(np.uint8)
    return contexts


def _plane(plane: NDArray, contexts: NDArray, gain: int) -> tuple[int, bytes]:
    """Return the depth that is best for a sample, and the bytes; 0 where it saves too little."""
    some = slice(0, _SAMPLE)
    tried = {
        depth: len(encode_bytes(plane[some], contexts[some], depth, 2 * _SAMPLE + 64) or b"")
        for depth in DEPTHS[1:]
    }
    depth = min(tried, key=lambda d: tried[d])
    share = tried[depth] / len(plane[some])
    if share < 1:
        data = encode_bytes(plane, contexts, depth, len(plane) + 64)
        if data is not None and len(data) < len(plane) - gain:
            return depth, data
    return 0, plane.tobytes()
