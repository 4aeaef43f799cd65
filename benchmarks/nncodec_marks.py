"""Bytes of `nncodec`, tuned per tensor, on the nets of benchmarks/codec.py.

Its pins clash with those of the study, so it runs in an environment of its own, from the
repository's folder, after `python -m benchmarks.codec` has trained the nets once:

    python3.11 -m venv build/nncodec
    build/nncodec/bin/pip install "numpy<2" torch Click scikit-learn tqdm h5py "pandas<3"
    build/nncodec/bin/pip install --no-deps nncodec==2.1.3
    build/nncodec/bin/python -m benchmarks.nncodec_marks build/codec

torchvision, OpenCV and what else it imports for networks of its own are stood in for by nothing.
Writes FOLDER/nncodec.csv (net, lost, bytes, test accuracy lost) and FOLDER/integers_<net>.npz:
whole numbers under "qp|tensor|bytes".
"""

import csv
import importlib.abc
import importlib.machinery
import sys
import types
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch

from benchmarks.nets import NETS

ABSENT = ("torchvision", "cv2", "wandb", "ptflops", "torchmetrics", "flwr", "transformers")


class Nothing(types.ModuleType):
    """A module that has every name."""

    __path__ = ()

    def __getattr__(self, name: str) -> object:
        """Return a class under a capital letter, else anything."""
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {}) if name[0].isupper() else MagicMock()


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds nothing under the names that are not needed."""

    def find_spec(self, name, path, target=None):  # noqa: D102
        absent = name.split(".")[0] in ABSENT
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if absent else None

    def create_module(self, spec):  # noqa: D102
        return Nothing(spec.name)

    def exec_module(self, module):  # noqa: D102
        pass


sys.meta_path.insert(0, Finder())
from nncodec import nnc  # noqa: E402


class Net:
    """A network, and what nncodec makes of it."""

    def __init__(self, name, folder):
        self.model, self.file = NETS[name]().eval(), str(folder / f"{name}.nnc")
        state = torch.load(folder / f"{name}.pt", weights_only=True)
        self.weights = {n: w.numpy() for n, w in state.items()}
        self.matrices = [n for n, w in self.weights.items() if w.ndim > 1]
        self.pictures = torch.load(folder / "pictures.pt", weights_only=True)

    def coded(self, weights, **options):
        """Return bytes, and the weights that come back."""
        options = {"qp": -32, "nonweight_qp": -40, "return_bitstream": True} | options
        data = nnc.compress(weights, bitstream_path=self.file, **options)
        return len(data), nnc.decompress(data)

    @torch.no_grad()
    def accuracy(self, weights, part="val"):
        """Return the share of right answers."""
        self.model.load_state_dict({n: torch.from_numpy(np.array(w)) for n, w in weights.items()})
        x, y = self.pictures[part]
        answers = torch.cat([self.model(some) for some in x.split(1000)]).argmax(1)
        return float((answers == y).double().mean())


def tuned(net, lost):
    """Return the fewest bytes found, and the weights: a common qp, then each tensor's, greedily."""
    least = net.accuracy(net.weights) - lost - 1e-9

    def tried(qps):
        size, back = net.coded(net.weights, qp_per_tensor=dict(qps), use_dq=True)
        return size if net.accuracy(back) >= least else 2**60, back

    for common in range(-4, -40, -1):  # from coarse to fine: accuracy moves up and down with it
        qps = dict.fromkeys(net.matrices, common)
        if (best := tried(qps)[0]) < 2**60:
            break
    largest, *others = sorted(net.matrices, key=lambda n: -net.weights[n].size)
    before = 2**60
    while best < before:
        before = best
        for name in (largest, *others):
            for step in (4, 2, 1):
                while (size := tried({**qps, name: qps[name] + step})[0]) < best:
                    qps, best = {**qps, name: qps[name] + step}, size
        for name in others:  # a small one finer, the largest coarser
            finer = {**qps, name: qps[name] - 4}
            while (size := tried(finer := {**finer, largest: finer[largest] + 1})[0]) < 2**60:
                if size < best:
                    qps, best = finer, size
    return tried(qps)


def main():
    """Write both files."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    with (folder / "nncodec.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["net", "lost", "bytes", "test_lost"])
        for name in NETS:
            net, integers = Net(name, folder), {}
            for qp in (-24, -20, -16, -12):
                for tensor in net.matrices:
                    one = {tensor: net.weights[tensor]}
                    size, back = net.coded(one, qp=qp, use_dq=False)
                    sizes = np.abs(back[tensor])
                    step = sizes[sizes > 0].min()
                    integers[f"{qp}|{tensor}|{size}"] = np.round(back[tensor] / step).astype("i4")
            np.savez(folder / f"integers_{name}.npz", **integers)
            before = net.accuracy(net.weights, "test")
            for lost in (0.005, 0.001):
                size, back = tuned(net, lost)
                table.writerow([name, lost, size, before - net.accuracy(back, "test")])
                file.flush()


if __name__ == "__main__":
    main()
