"""Weight files from the command line: pack and unpack saved weights, look inside, compare."""

import argparse
import lzma
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError

import pandas as pd
import torch
import zstandard
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ibcore.codec.container import contents, load, pack, save, unpack


def main(given: Sequence[str] | None = None) -> int:
    """Do what is asked; 0, or 1 with one message where something is wrong."""
    parser = argparse.ArgumentParser(prog="ibcore.codec", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    described = {
        "pack": "write a weight file (.ibc) of weights in a .pt or .safetensors file",
        "unpack": "write the weights of a weight file to a .pt or .safetensors file",
        "info": "say what a weight file holds, tensor by tensor",
        "compare": "say how small general compressors and the weight file make weights",
    }
    for name, words in described.items():
        command = commands.add_parser(name, help=words, description=words)
        command.add_argument("source", type=Path)
        if name in ("pack", "unpack"):
            command.add_argument("target", type=Path)
    options = parser.parse_args(given)
    try:
        {"pack": _pack, "unpack": _unpack, "info": _info, "compare": _compare}[options.command](
            options
        )
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        print(f"\n{error}\n", file=sys.stderr)
        return 1
    return 0


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .pt, .safetensors or .ibc file, on the CPU; nothing is unpickled.

    Raises:
        ValueError: another ending, or a file that holds no such weights.
    """
    try:
        if path.suffix == ".ibc":
            return load(path, progress=True)
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix != ".pt":
            raise ValueError("its name must end in .pt, .safetensors or .ibc")
        found = torch.load(path, weights_only=True, map_location="cpu")
        if not isinstance(found, dict) or not all(isinstance(w, Tensor) for w in found.values()):
            raise ValueError("it holds more than names and tensors: save a model's state_dict()")
        return dict(found)
    except (RuntimeError, UnpicklingError, SafetensorError, EOFError, ValueError) as error:
        raise ValueError(f"{path} can't be read: {error}") from error


def _pack(options: argparse.Namespace) -> None:
    state = read(options.source)
    size = save(state, options.target, progress=True)
    before = _in_memory(state)
    print(f"{options.target}: {size} bytes of {before}, {before / max(size, 1):.2f} times smaller")


def _unpack(options: argparse.Namespace) -> None:
    state, target = load(options.source, progress=True), options.target
    part = target.with_name(f".{target.name}.part")
    writers: dict[str, Callable[[], object]] = {
        ".pt": lambda: torch.save(state, part),
        ".safetensors": lambda: save_file({n: w.clone() for n, w in state.items()}, part),
    }
    if target.suffix not in writers:
        raise ValueError(f"{target}: its name must end in {' or '.join(writers)}")
    try:
        writers[target.suffix]()
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    print(f"{target}: {len(state)} tensors")


def _info(options: argparse.Namespace) -> None:
    data = options.source.read_bytes()
    table = contents(data)
    print(table.to_string(index=False, na_rep=""))
    memory = int(table["in_memory"].sum()) if len(table) else 0
    print(f"{len(data)} bytes, {memory} in memory, {memory / len(data):.2f} times smaller")


def _compare(options: argparse.Namespace) -> None:
    state = read(options.source)
    plain = [w.detach().contiguous().reshape(-1) for w in state.values()]
    rows = [w.view(torch.uint8).numpy().reshape(-1, w.element_size()) for w in plain]
    forms = {
        "as they are": b"".join(w.tobytes() for w in rows),
        "bytes regrouped": b"".join(w.T.tobytes() for w in rows),
    }
    found = [
        {"compressor": f"{name}, {form}", "bytes": len(press(data))}
        for form, data in forms.items()
        for name, press in general().items()
    ]
    data = pack(state, progress=True)
    if not all(_same(unpack(data)[name], tensor) for name, tensor in state.items()):
        raise RuntimeError("what was packed is not what comes back: please report this")
    table = pd.DataFrame([*found, {"compressor": "weight file", "bytes": len(data)}])
    table["times_smaller"] = (_in_memory(state) / table["bytes"]).round(3)
    print(table.to_string(index=False))


def general() -> dict[str, Callable[[bytes], bytes]]:
    """Return general compressors at their best setting."""
    return {
        "zstd-19": zstandard.ZstdCompressor(19).compress,
        "xz-9": lambda data: lzma.compress(data, preset=9),
    }


def _in_memory(state: dict[str, Tensor]) -> int:
    return sum(w.numel() * w.element_size() for w in state.values())


def _same(a: Tensor, b: Tensor) -> bool:
    a, b = (w.detach().contiguous().reshape(-1).view(torch.uint8) for w in (a, b))
    return a.equal(b)


if __name__ == "__main__":
    sys.exit(main())
