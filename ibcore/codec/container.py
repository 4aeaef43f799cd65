"""A file of weights: a header, streams of bytes, a checksum. The page `weight_file` defines it."""

import math
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ibcore.codec.mixing import FEWEST_BITS, Coder
from ibcore.codec.tensors import (
    DEPENDENT,
    DEPTHS,
    DTYPES,
    EXPONENT,
    FLOAT,
    METHODS,
    RAW,
    STEPS,
    TWIN,
    WHOLE,
    Coded,
    Steps,
    columns_of,
    planes_of,
    restore_float,
    restore_numbers,
    shrink,
)
from ibcore.layers import uncompiled

MAGIC = b"\x8fibc\r\n\x1a"
VERSION = 1
LIMIT = 2**32  # bytes of tensors that a file may declare, unless it is told otherwise

State = Mapping[str, Tensor | Steps]


class WeightFileError(ValueError):
    """A file is no weight file, or a damaged one, or declares more than it may."""


class Entry(NamedTuple):
    """What the header says of a tensor.

    Args:
        name: its key in the `state_dict`.
        dtype: of its values.
        shape: its dimensions.
        coded: method, contexts and the streams; these are empty until the file is read on.
        step: of `STEPS` and `DEPENDENT`.
        lengths: of the streams, in bytes.
        twin: the number of the tensor that it shares its memory with.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    coded: Coded
    step: float
    lengths: tuple[int, ...]
    twin: int

    @property
    def size(self) -> int:
        """Bytes of the tensor in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


def save(model: nn.Module | State, path: Path | str, *, progress: bool = False) -> int:
    """Write weights to a file; return its size in bytes.

    Nothing is lost of a tensor; of `Steps`, which `quantise` and `compress` make, the whole numbers
    are kept. Tensors that share their memory are written once. The file appears whole or not at
    all.

    Args:
        model: a network, or names with tensors and `Steps`.
        path: of the file; one that is there is replaced.
        progress: whether to draw a progress bar.
    Raises:
        TypeError: a value that is neither a tensor nor `Steps`.
        ValueError: a dtype or layout that the file has no form for.
    """
    path = Path(path)
    data = pack(model, progress=progress)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return len(data)


def load(path: Path | str, *, limit: int = LIMIT, progress: bool = False) -> dict[str, Tensor]:
    """Return the tensors of a weight file by name, on the CPU: `model.load_state_dict(load(path))`.

    Args:
        path: of the file.
        limit: bytes that the tensors may take together.
        progress: whether to draw a progress bar.
    Raises:
        WeightFileError: the file is none, is damaged, or declares more than it may.
        OSError: it can't be read.
    """
    return unpack(Path(path).read_bytes(), limit=limit, progress=progress)


def pack(model: nn.Module | State, *, progress: bool = False) -> bytes:
    """Return the bytes that `save` writes; see there."""
    entries = _entries(model, progress)
    header = _header(entries)
    head = MAGIC + bytes([VERSION]) + _varint(len(header)) + header
    body = head + b"".join(stream for entry in entries for stream in entry.coded.streams)
    return body + struct.pack("<I", zlib.crc32(body))


def unpack(data: bytes, *, limit: int = LIMIT, progress: bool = False) -> dict[str, Tensor]:
    """Return the tensors of a weight file's bytes; see `load`."""
    entries, position = _parse(data, limit)
    found: list[Tensor] = []
    for entry in tqdm(entries, "tensors", disable=not progress, unit=""):
        streams = []
        for length in entry.lengths:
            streams.append(data[position : position + length])
            position += length
        found.append(found[entry.twin] if entry.coded.method == TWIN else _restore(entry, streams))
    return {entry.name: tensor for entry, tensor in zip(entries, found, strict=True)}


def coded_sizes(model: nn.Module | State) -> pd.DataFrame:
    """Return what each tensor takes in the file, without writing one.

    Args:
        model: a network, or names with tensors and `Steps`.
    Returns:
        tensor; size (how many numbers); method; bytes (header and streams); mask, signs and
        magnitudes (bits of whole numbers and steps: which are not 0, their signs, their
        magnitudes; 0 of floats). The last row, "file", is the whole file with its magic and
        checksum.
    """
    rows = []
    before = len(_header([]))
    entries = _entries(model, False)
    for number, entry in enumerate(entries):
        after = len(_header(entries[: number + 1]))
        whole = entry.coded.method in (WHOLE, STEPS, DEPENDENT)
        spent = entry.coded.spent if whole else np.zeros(3)
        rows.append(
            {
                "tensor": entry.name,
                "size": math.prod(entry.shape),
                "method": METHODS[entry.coded.method],
                "bytes": after - before + sum(entry.lengths),
                **dict(zip(("mask", "signs", "magnitudes"), spent.tolist(), strict=True)),
            }
        )
        before = after
    table = pd.DataFrame(rows, columns=[
        "tensor", "size", "method", "bytes", "mask", "signs", "magnitudes",
    ])  # fmt: skip
    frame = len(MAGIC) + 1 + len(_varint(before)) + len(_header([])) + 4
    total = {"tensor": "file", "method": "", "bytes": int(table["bytes"].sum()) + frame}
    numeric = {n: table[n].sum() for n in ("size", "mask", "signs", "magnitudes")}
    return pd.concat([table, pd.DataFrame([total | numeric])], ignore_index=True)


def contents(data: bytes, *, limit: int = LIMIT) -> pd.DataFrame:
    """Return what the header of a weight file declares, a row a tensor, nothing decoded.

    Raises:
        WeightFileError: see `load`.
    """
    return pd.DataFrame(
        [
            {
                "tensor": entry.name,
                "dtype": str(entry.dtype).removeprefix("torch."),
                "shape": "×".join(map(str, entry.shape)) or "1",
                "method": METHODS[entry.coded.method],
                "step": entry.step or np.nan,
                "bytes": sum(entry.lengths),
                "in_memory": 0 if entry.coded.method == TWIN else entry.size,
            }
            for entry in _parse(data, limit)[0]
        ]
    )


# Writing


def _entries(model: nn.Module | State, progress: bool) -> list[Entry]:
    state: State = uncompiled(model).state_dict() if isinstance(model, nn.Module) else model
    entries: list[Entry] = []
    places: dict[object, int] = {}
    for name, tensor in tqdm(state.items(), "tensors", disable=not progress, unit=""):
        values = tensor.levels if isinstance(tensor, Steps) else tensor
        _check(name, tensor)
        dtype = tensor.dtype
        step = tensor.step if isinstance(tensor, Steps) else 0.0
        dependent = isinstance(tensor, Steps) and tensor.dependent
        key: object = (values.data_ptr(), values.shape, values.stride(), dtype, step, dependent)
        twin = places.setdefault(key if values.numel() else name, len(entries))
        coded = Coded(TWIN) if twin < len(entries) else shrink(tensor)
        lengths = tuple(map(len, coded.streams))
        entries.append(Entry(name, dtype, tuple(values.shape), coded, step, lengths, twin))
    return entries


def _check(name: str, tensor: object) -> None:
    if isinstance(tensor, Steps):
        if tensor.dtype not in EXPONENT or not 0 < tensor.step == float(np.float32(tensor.step)):
            raise ValueError(
                f"{name!r}: steps need a float dtype and a step above 0 that is a float32, got "
                f"{tensor.dtype} and {tensor.step}"
            )
        return
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name!r} is no tensor but of type {type(tensor).__name__}")
    if tensor.dtype not in DTYPES or tensor.layout != torch.strided:
        raise ValueError(
            f"{name!r} is {tensor.dtype}, {tensor.layout}: a weight file holds dense tensors of "
            f"{', '.join(str(d).removeprefix('torch.') for d in DTYPES)}"
        )


def _header(entries: Iterable[Entry]) -> bytes:
    entries = list(entries)
    out = bytearray(_varint(len(entries)))
    before = b""
    for entry in entries:
        name = entry.name.encode()
        shared = next(
            (i for i, (a, b) in enumerate(zip(name, before, strict=False)) if a != b),
            min(len(name), len(before)),
        )
        before = name
        out += _varint(shared) + _varint(len(name) - shared) + name[shared:]
        out += bytes([DTYPES.index(entry.dtype), entry.coded.method])
        method, coded = entry.coded.method, entry.coded
        if method == TWIN:
            out += _varint(entry.twin)
            continue
        out += b"".join(map(_varint, (len(entry.shape), *entry.shape)))
        if method != RAW:
            out += _varint(coded.coder.period)
        if method in (STEPS, DEPENDENT):
            out += struct.pack("<f", entry.step)
        if method == FLOAT:
            out += b"".join(map(_varint, (coded.coder.offset, coded.center, coded.floor)))
            out += bytes(coded.depths)
        if method != RAW:
            planes = zip((8, *coded.depths), entry.lengths, strict=True)
            out += b"".join(_varint(length) for depth, length in planes if depth)
    return bytes(out)


def _varint(value: int) -> bytes:
    """Return seven bits a byte, low ones first; the top bit says that more follow."""
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


# Reading


class _Reader:
    """The header's bytes, one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        if count > len(self.data) - self.position:
            raise WeightFileError(f"the header ends at {len(self.data)} bytes, {count} more needed")
        self.position += count
        return self.data[self.position - count : self.position]

    def byte(self, *allowed: int) -> int:
        """Return the next byte, one of those allowed."""
        value = self.take(1)[0]
        if value not in allowed:
            raise WeightFileError(f"byte {value} in the header, where one of {allowed} belongs")
        return value

    def varint(self, most: int = 2**62) -> int:
        """Return the next whole number."""
        value = shift = 0
        while (byte := self.take(1)[0]) >= 128:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 56:
                raise WeightFileError("a number in the header has more than nine bytes")
        value |= byte << shift
        if value > most:
            raise WeightFileError(f"{value} in the header, where at most {most} is allowed")
        return value


def _parse(data: bytes, limit: int) -> tuple[list[Entry], int]:
    """Return the header's entries and where the streams begin, once all of it is checked."""
    if data[: len(MAGIC)] != MAGIC:
        raise WeightFileError(f"no weight file: it begins with {bytes(data[:8])!r}")
    reader = _Reader(data[len(MAGIC) :])
    if (version := reader.take(1)[0]) != VERSION:
        raise WeightFileError(f"a weight file of version {version}; this reads version {VERSION}")
    if len(data) < 16 or zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        raise WeightFileError("the weight file is damaged or cut off: its checksum does not fit")
    length = reader.varint(len(data))
    header = _Reader(reader.take(length))
    start = len(MAGIC) + reader.position
    entries: list[Entry] = []
    for _ in range(header.varint(length)):
        entries.append(_entry(header, entries))
    if header.position != length:
        raise WeightFileError(f"{length - header.position} bytes are left over in the header")
    _check_sizes(entries, len(data) - 4 - start, limit)
    return entries, start


def _entry(header: _Reader, before: list[Entry]) -> Entry:
    last = before[-1].name.encode() if before else b""
    shared = header.varint(len(last))
    try:
        name = (last[:shared] + header.take(header.varint(2**16))).decode()
    except UnicodeDecodeError as error:
        raise WeightFileError(f"a name in the header is no text: {error}") from error
    dtype = DTYPES[header.byte(*range(len(DTYPES)))]
    method = header.byte(*range(len(METHODS)))
    if method == TWIN:
        if not before:
            raise WeightFileError(f"{name!r} shares the memory of a tensor, but is the first")
        twin = header.varint(len(before) - 1)
        if before[twin].dtype != dtype:
            raise WeightFileError(f"{name!r} is {dtype}, but shares memory of another dtype")
        coded = Coded(TWIN)
        return Entry(name, dtype, before[twin].shape, coded, 0.0, (), twin)
    has_step = method in (STEPS, DEPENDENT)
    if (has_step or method == FLOAT) != (dtype in EXPONENT) and method != RAW:
        raise WeightFileError(f"{name!r} is {dtype}, written as method {method}: they don't fit")
    shape = tuple(header.varint(2**40) for _ in range(header.varint(64)))
    columns = columns_of(shape)
    period = header.varint(columns) if method != RAW else 0
    step = struct.unpack("<f", header.take(4))[0] if has_step else 0.0
    if has_step and not 0 < step < np.inf:
        raise WeightFileError(f"{name!r} has a step of {step}")
    offset = center = floor = 0
    depths: tuple[int, ...] = ()
    if method == FLOAT:
        most = 2 ** EXPONENT[dtype] - 1
        offset, center, floor = header.varint(255), header.varint(most), header.varint(most)
        depths = tuple(header.byte(*DEPTHS) for _ in range(planes_of(dtype)))
    count = math.prod(shape)
    lengths: tuple[int, ...] = (count * dtype.itemsize,)
    if method != RAW:
        lengths = tuple(header.varint() if depth else count for depth in (8, *depths))
    coder = Coder(columns, period, offset, method == DEPENDENT)
    coded = Coded(method, coder, center, floor, depths)
    return Entry(name, dtype, shape, coded, step, lengths, len(before))


def _check_sizes(entries: list[Entry], payload: int, limit: int) -> None:
    """Raise WeightFileError where what is declared can't be, before anything is allocated."""
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise WeightFileError(f"the header names {twice[:3]} more than once")
    if (declared := sum(sum(entry.lengths) for entry in entries)) != payload:
        raise WeightFileError(
            f"the header declares {declared} bytes of streams, there are {payload}"
        )
    total = sum(entry.size for entry in entries if entry.coded.method != TWIN)
    if total > limit:
        raise WeightFileError(
            f"the header declares tensors of {total} bytes, more than limit={limit}: give a larger "
            "limit if you trust the file"
        )
    for entry in entries:
        count = entry.size // entry.dtype.itemsize
        if math.prod(max(d, 1) for d in entry.shape) > 2**62:
            raise WeightFileError(f"{entry.name!r} has shape {entry.shape}: too large")
        if entry.coded.method in (RAW, TWIN):
            continue
        for depth, length in zip((1, *entry.coded.depths), entry.lengths, strict=True):
            if depth and count * FEWEST_BITS > 8 * (length + 8):
                raise WeightFileError(
                    f"{entry.name!r} declares {count} numbers in {length} bytes: they can't be"
                )


def _restore(entry: Entry, streams: list[bytes]) -> Tensor:
    """Return one tensor from its streams."""
    method, dtype, shape = entry.coded.method, entry.dtype, entry.shape
    if method == RAW:
        if dtype == torch.bool and streams[0].translate(None, b"\0\1"):
            raise WeightFileError(f"{entry.name!r} is bool, with bytes other than 0 and 1")
        flat = torch.frombuffer(bytearray(streams[0]), dtype=torch.uint8) if streams[0] else None
        return torch.empty(shape, dtype=dtype) if flat is None else flat.view(dtype).reshape(shape)
    try:
        if method == FLOAT:
            return restore_float(streams, shape, dtype, entry.coded)
    except ValueError as error:
        raise WeightFileError(f"{entry.name!r} is damaged: {error}") from error
    levels = restore_numbers(streams[0], shape, entry.coded.coder)
    if method in (STEPS, DEPENDENT):
        return Steps(levels, entry.step, dtype).values()
    least, most = (
        (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    )
    if levels.numel() and not least <= int(levels.min()) <= int(levels.max()) <= most:
        raise WeightFileError(f"{entry.name!r} is {dtype}, with numbers beyond its range")
    return levels.to(dtype)
