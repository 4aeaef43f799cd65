"""python -m benchmarks.fuzz_codec: damaged weight files by the million, guided by coverage.

`pip install atheris` first. What comes behind `--` goes to libFuzzer; `-runs=1000000` by default.
Each file gets a right checksum, so that the parser is reached; what it lets through is decoded. A
file may be read or refused with `WeightFileError`; all else stops the run and is written down.
"""

import importlib
import struct
import sys
import tempfile
import zlib
from pathlib import Path

import atheris
import torch

import ibcore.codec  # noqa: F401 - whole, as numba can't compile what is instrumented
from ibcore.codec.rounding import trellis

WATCHED = ["ibcore.codec.tensors", "ibcore.codec.container"]
for name in WATCHED:
    del sys.modules[name]
with atheris.instrument_imports(include=WATCHED):
    tensors, container = map(importlib.import_module, WATCHED)

LIMIT = 1 << 16  # bytes of tensors
FRAME = len(container.MAGIC) + 1


def seeds() -> list[bytes]:
    """Return small files of every dtype, shape and method, without frame and checksum."""
    levels = torch.arange(-6, 6).reshape(3, 4)
    one = levels[:1].clone()
    states = [
        *({"w": levels.to(dtype), "e": levels[:0].to(dtype)} for dtype in tensors.DTYPES),
        *({"w": (levels / 7).to(dtype)} for dtype in tensors.DTYPES[:4]),
        {"a.weight": levels, "a.bias": levels, "b": levels.float().clone(), "c": torch.tensor(3.0)},
        {
            "s": tensors.Steps(levels, 0.5, torch.float32),
            "t": tensors.Steps(one, 2.0, torch.bfloat16),
            "d": tensors.Steps(trellis(levels.double() / 2, 0.1), 0.5, torch.float32, True),
        },
        {"w": torch.randn(40, 9, generator=torch.Generator().manual_seed(0)).bfloat16()},
    ]
    return [container.pack(state)[FRAME:-4] for state in states]


def read_one(data: bytes) -> None:
    """Read a file; raise where an error has the wrong class, or tensors take more than allowed."""
    body = container.MAGIC + bytes([container.VERSION]) + data
    try:
        found = container.unpack(body + struct.pack("<I", zlib.crc32(body)), limit=LIMIT)
    except container.WeightFileError:
        return
    places = {tensor.data_ptr(): tensor.nbytes for tensor in found.values()}
    if sum(places.values()) > LIMIT:
        raise AssertionError(f"{sum(places.values())} bytes of tensors, {LIMIT} allowed")


def main() -> None:
    """Fuzz from the seeds."""
    torch.set_num_threads(1)
    options = sys.argv[1:] or ["-runs=1000000", "-max_len=400"]
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(seeds()):
            (Path(folder) / f"seed{number}").write_bytes(data)
        atheris.Setup([sys.argv[0], *options, folder], read_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
