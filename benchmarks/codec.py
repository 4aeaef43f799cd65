"""The weight file beside general compressors and beside the standard's codec, on the same nets.

`python -m benchmarks.codec` trains three networks on the original MNIST (some ten minutes) and
keeps them in build/codec. Bytes of `nncodec` come from an environment of its own, made by what
benchmarks/nncodec_marks.py says, and are read from build/codec/nncodec.csv where they are. A larger
network that others trained, a speaker encoder of 1.4 million weights, comes from a package:

    pip download --no-deps --dest build/codec resemblyzer==0.1.4
"""

import functools
import hashlib
import io
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.measure import row, seconds
from benchmarks.nets import EPOCHS, NETS
from ibcore import codec
from ibcore.codec import mixing
from ibcore.codec.tensors import Steps, columns_of
from ibcore.data import DataUnavailableError, load
from study.compression import COMPRESSORS

FOLDER = Path("build/codec")
PUBLIC = ("Resemblyzer-0.1.4-py3-none-any.whl", "resemblyzer/pretrained.pt")
PUBLIC_SHA256 = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"


def trained(name: str) -> nn.Module:
    """Return a network in evaluation mode, trained once and kept."""
    torch.manual_seed(0)
    model, path = NETS[name](), FOLDER / f"{name}.pt"
    if not path.exists():
        x, y = pictures()["train"]
        steps = torch.optim.Adam(model.parameters(), 1e-3)
        slower = torch.optim.lr_scheduler.LinearLR(steps, 1, 0.02, EPOCHS[name])
        for _ in range(EPOCHS[name]):
            for batch in torch.randperm(len(x)).split(128):
                steps.zero_grad()
                nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
                steps.step()
            slower.step()
        torch.save(model.state_dict(), path)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def public() -> dict[str, Tensor] | None:
    """Return the weights of `PUBLIC`; None where the package is not at hand."""
    wheel, name = PUBLIC
    if not (FOLDER / wheel).exists():
        return None
    with zipfile.ZipFile(FOLDER / wheel) as files:
        data = files.read(name)
    if (found := hashlib.sha256(data).hexdigest()) != PUBLIC_SHA256:
        raise ValueError(f"{name} in {FOLDER / wheel} has hash {found}, not {PUBLIC_SHA256}")
    weights: dict[str, Tensor] = torch.load(
        io.BytesIO(data), map_location="cpu", weights_only=True
    )["model_state"]
    return weights


@functools.cache
def pictures() -> dict[str, tuple[Tensor, Tensor]]:
    """Return 50 000 pictures to train on, 10 000 to choose by and 10 000 to test; kept, too."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    ds = load("mnist", size=60_000, test_size=10_000, source="original")
    parts = {"train": ds.train[:50_000], "val": ds.train[50_000:], "test": ds.test}
    found = {part: (ds.x[index], ds.y[index]) for part, index in parts.items()}
    torch.save({part: found[part] for part in ("val", "test")}, FOLDER / "pictures.pt")
    return found


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of right answers."""
    with torch.no_grad():
        return float((torch.cat([model(p) for p in x.split(1000)]).argmax(1) == y).double().mean())


def bench_lossless(name: str, state: dict[str, Tensor]) -> None:
    """Bytes by the best of the general compressors, their bytes regrouped."""
    for dtype, kind in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
        weights = {n: w.to(dtype) for n, w in state.items()}
        data = codec.pack(weights)
        found = codec.unpack(data)
        same = all(
            w.view(torch.uint8).equal(found[n].view(torch.uint8)) for n, w in weights.items()
        )
        planes = (
            w.reshape(-1).view(torch.uint8).reshape(-1, dtype.itemsize) for w in weights.values()
        )
        plain = b"".join(p.T.contiguous().numpy().tobytes() for p in planes)
        others = {n: len(press(plain)) for n, press in COMPRESSORS.items()}
        best = min(others, key=lambda n: others[n])
        ratio = len(data) / others[best]
        row(f"{name}, {kind} without loss, by {best} regrouped ({len(plain) / len(data):.3f}×)",
            f"{ratio:.3f}", "<= 0.97", ratio <= 0.97 and same)  # fmt: skip
        if dtype == torch.float32:
            bench_speed(name, weights, data, len(plain))


def bench_speed(name: str, weights: dict[str, Tensor], data: bytes, size: int) -> None:
    """Megabytes of weights a second."""
    writing = size / seconds(lambda: codec.pack(weights), 3) / 1e6
    reading = size / seconds(lambda: codec.unpack(data), 3) / 1e6
    row(f"  {name}, written, MB/s", f"{writing:.1f}", ">= 5", writing >= 5)
    row(f"  {name}, read, MB/s", f"{reading:.1f}", ">= 20", reading >= 20)


def bench_coder(name: str) -> None:
    """Bytes of the same whole numbers: nearest multiples of steps that nncodec chose."""
    path = FOLDER / f"integers_{name}.npz"
    if not path.exists():
        return
    with np.load(path, allow_pickle=False) as arrays:
        for point in sorted({n.split("|")[0] for n in arrays.files}):
            ours = theirs = 0
            for key in (n for n in arrays.files if n.startswith(f"{point}|")):
                values, columns = arrays[key].ravel(), columns_of(arrays[key].shape)
                coder = mixing.Coder(columns, mixing.repeats(values, columns))
                found = mixing.encode(values, coder, 16 * len(values))
                ours += len(found[0]) if found else 2**40
                theirs += int(key.split("|")[2])
            ratio = ours / theirs
            row(f"{name}, coder alone by nncodec's, qp {point} ({theirs} bytes)",
                f"{ratio:.3f}", "<= 0.93", ratio <= 0.93)  # fmt: skip


def bench_lossy(name: str, model: nn.Module) -> None:
    """Bytes at an accuracy, by those of nncodec tuned per tensor."""
    data = pictures()
    marks = FOLDER / "nncodec.csv"
    theirs = pd.read_csv(marks).query("net == @name") if marks.exists() else pd.DataFrame()
    before = accuracy(model, *data["test"])
    for lost in (0.005, 0.001):
        for inputs, wanted in ((data["train"][0][:4000], 0.70), (None, 0.95)):
            found = codec.compress(model, None, *data["val"], lost=lost, calibration=inputs)
            other = NETS[name]()
            values = {n: w.values() if isinstance(w, Steps) else w for n, w in found.state.items()}
            other.load_state_dict(values)
            tested = before - accuracy(other, *data["test"])
            # what they lose less with counts where more may be lost: their search can end far off
            mark = theirs.query("lost <= @lost")["bytes"].min() if len(theirs) else float("nan")
            ratio = found.size / mark
            known = "with inputs" if inputs is not None else "without"
            row(f"{name}, -{lost:.1%}, {known}: {found.size} bytes ({tested:+.2%} in test)",
                f"{ratio:.2f} of nncodec", f"<= {wanted}", ratio <= wanted)  # fmt: skip


def main() -> None:
    """Print the table."""
    start = time.perf_counter()
    try:
        pictures()
    except DataUnavailableError as error:
        row("Weight files of nets on MNIST", "needs the original", "", False)
        print(error)
        return
    for name in NETS:
        model = trained(name)
        bench_lossless(name, dict(model.state_dict()))
        bench_coder(name)
        bench_lossy(name, model)
    if (weights := public()) is None:
        row("Weights of a public network", "needs a package", "", False)
    else:
        bench_lossless("public", weights)
    print(f"({time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
