"""The table of `diagnose` for a saved network, from the command line."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from torch import nn

from ibcore.capacity.rank import LOST
from ibcore.capacity.verdict import diagnose


def main(given: Sequence[str] | None = None) -> int:
    """Diagnose a saved network; 0, or 1 with one message where something is wrong."""
    parser = argparse.ArgumentParser(prog="ibcore.capacity", description=__doc__)
    parser.add_argument("factory", help="module:function that returns the untrained network")
    parser.add_argument("weights", type=Path, help="its state_dict, as torch.save writes it")
    parser.add_argument("data", type=Path, help="a .npz file with the arrays x and y")
    parser.add_argument("--layers", nargs="+", help="names or patterns; the activations by default")
    parser.add_argument("--lost", type=float, default=LOST, help="accuracy that may be lost")
    parser.add_argument("--csv", type=Path, help="where to write the table, too")
    options = parser.parse_args(given)
    try:
        model = network(options.factory, options.weights)
        with np.load(options.data, allow_pickle=False) as arrays:
            x, y = (torch.from_numpy(arrays[name]) for name in ("x", "y"))
        x = x.to(next(model.parameters()).dtype)
        table = diagnose(model, (x, y.long()), layers=options.layers, lost=options.lost)
        if options.csv:
            part = options.csv.with_name(f".{options.csv.name}.part")
            table.to_csv(part, index=False)
            part.replace(options.csv)
    except (ArithmeticError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        print(f"\n{error}\n", file=sys.stderr)
        return 1
    return 0


def network(factory: str, weights: Path) -> nn.Module:
    """Return the network that a function makes, with its saved weights.

    Args:
        factory: module:function, found from the current folder.
        weights: file of a `state_dict`; nothing else in it is unpickled.
    Raises:
        ValueError: no such module or function, no network, or a file that holds no such weights.
    """
    module, _, function = factory.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        model = getattr(importlib.import_module(module), function)()
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        raise ValueError(f"{factory!r} names no function without arguments: {error}") from error
    finally:
        sys.path.pop(0)
    if not isinstance(model, nn.Module):
        raise ValueError(f"{factory!r} returned {type(model).__name__}, not an nn.Module")
    try:
        model.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    except (RuntimeError, UnpicklingError, AttributeError, TypeError, EOFError) as error:
        raise ValueError(f"{weights} holds no weights of {factory}: {error}") from error
    return model


if __name__ == "__main__":
    sys.exit(main())
