"""How many bits a data set holds: of its labels, of its inputs, and of one about the other."""

import lzma
import math
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from zstandard import ZstdCompressor

from ibcore.checks import stream
from ibcore.discrete import entropy, label_entropy
from ibcore.hooks import _evaluation
from ibcore.threads import threads_for

_LEVELS = 2**16  # distinct values that count as a grid
_TIED = 0.1  # share of samples whose two nearest neighbours may be equally far


def data_bits(x: Tensor, y: Tensor, *, limit: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Return what labels and inputs hold, in bits a sample, each with the kind of number it is.

    Labels: the plug-in entropy; times n_samples it is a table of all labels. Inputs must lie on a
    grid, as grey values and bits do. Their *plug-in* entropy counts whole samples; it is too low
    by about (distinct − 1)/(2 N ln 2), which *Miller-Madow* adds, and where hardly a sample comes
    twice both say log₂ N and no more. *zstd*, *xz* and, for images, *png* are what real compressors
    need. *Gaussian* is the length of a code for a Gaussian with the covariance of one half of the
    samples, on the other half, values made continuous by uniform noise of one level.

    Args:
        x: inputs, shape (n_samples, ...), any dtype; images are (n_samples, height, width),
            channels before height.
        y: labels, shape (n_samples,), any integer dtype.
        limit: samples of the inputs that are compressed, drawn without replacement.
        seed: of the drawing.
    Returns:
        Columns of (labels, inputs), method, kind (estimate, upper bound), bits (a sample).
    Raises:
        ValueError: labels that are not one a sample, fewer than four samples, values that are not
            finite or on no grid.
    Source: Cover & Thomas (2006), sections 5.3 and 8.6 [cover2006elements]; Paninski (2003) on
        the correction of Miller and Madow [paninski2003estimation].
    """
    _check_labels(x, y)
    if len(x) < 4:
        raise ValueError(f"two halves of at least two samples are needed, got {len(x)} samples")
    codes = _grid(x)
    drawn = torch.randperm(len(x), generator=stream(seed, "data"))[:limit]
    few = codes[drawn.numpy()]
    flat = codes.reshape(len(codes), -1)
    counts = torch.from_numpy(np.unique(flat, axis=0, return_counts=True)[1])
    plug_in = entropy(counts)
    rows = [
        ("labels", "plug-in", "estimate", label_entropy(y)),
        ("inputs", "plug-in", "estimate", plug_in),
        ("inputs", "Miller-Madow", "estimate", plug_in + (len(counts) - 1) / len(x) / math.log(4)),
        *[("inputs", name, "upper bound", bits) for name, bits in _compressed(few).items()],
        ("inputs", "Gaussian", "upper bound", _gaussian(few.reshape(len(few), -1))),
    ]
    return pd.DataFrame(rows, columns=["of", "method", "kind", "bits"])


def label_information(logits: Tensor, y: Tensor) -> float:
    """Return H(Y) minus the cross-entropy of an answer, in bits: what it shows of I(X;Y) at least.

    On samples that the network was not trained on it is a lower bound, up to their number; it is
    below 0 where the answer is worse than to know the frequencies of the classes.

    Args:
        logits: shape (n_samples, n_classes).
        y: labels, shape (n_samples,).
    Raises:
        ValueError: shapes that don't match, or logits that are not finite.
    Source: Barber & Agakov (2003) [barber2003im].
    """
    if logits.ndim != 2 or logits.shape[:1] != y.shape or not torch.isfinite(logits).all():
        raise ValueError(
            "finite logits (n_samples, n_classes) and labels (n_samples,) are needed, got shapes "
            f"{tuple(logits.shape)} and {tuple(y.shape)}"
        )
    return label_entropy(y) - float(cross_entropy(logits.detach().double(), y)) / math.log(2)


def prequential_by_blocks(
    make: Callable[[], nn.Module],
    x: Tensor,
    y: Tensor,
    train: Callable[[nn.Module, Tensor, Tensor], Any],
    *,
    first: int = 64,
) -> pd.DataFrame:
    """Return the code length of the labels by networks that are trained anew on ever more samples.

    The first block is sent with log₂ n_classes bits a label. Each next block, which doubles what
    has been seen, is sent by a new network trained on all before it. Shuffle the samples first.

    Args:
        make: returns an untrained network that answers with logits.
        x: inputs, shape (n_samples, ...).
        y: labels, shape (n_samples,), from 0.
        train: called with the network, x and y seen so far.
        first: samples of the first block.
    Returns:
        Columns seen (samples before the block), samples, bits (of the block); their sum is the
        code length.
    Raises:
        ValueError: a first block of none or of more samples than there are, labels that are not
            one a sample.
    Source: Blier & Ollivier (2018) [blier2018description].
    """
    _check_stream(x, y, first)
    rows = [(0, first, first * math.log2(_logits(make(), x[:1]).shape[1]))]
    while (seen := rows[-1][0] + rows[-1][1]) < len(x):
        model, end = make(), min(2 * seen, len(x))
        train(model, x[:seen], y[:seen])
        loss = cross_entropy(_logits(model, x[seen:end]).double(), y[seen:end], reduction="sum")
        rows.append((seen, end - seen, float(loss) / math.log(2)))
    return pd.DataFrame(rows, columns=["seen", "samples", "bits"])


def prequential_by_rehearsal(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    block: int = 32,
    replays: int = 8,
    learning_rate: float = 1e-3,
    calibration_rate: float = 0.02,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Return the code length of the labels by one network that learns on as they come.

    Each block is sent by the network as it is, its logits scaled by e^β; then β takes a step on
    the block, before the network has seen it (*forward calibration*), and the network takes a step
    on the block and `replays` steps on as many samples drawn from all seen so far (*rehearsal*).
    Shuffle the samples first. The model is trained in place.

    Args:
        model: an untrained network that answers with logits.
        x: inputs, shape (n_samples, ...).
        y: labels, shape (n_samples,), from 0.
        block: samples a step.
        replays: steps of rehearsal a block.
        learning_rate: Adam's, for the weights.
        calibration_rate: Adam's, for β.
        seed: of the samples that are drawn again.
        progress: whether to draw a progress bar.
    Returns:
        Columns seen (samples before the block), samples, bits (of the block); their sum is the
        code length.
    Raises:
        ValueError: a setting below its least, labels that are not one a sample.
        ArithmeticError: the loss is no longer finite.
    Source: Bornschein, Li & Hutter (2023) [bornschein2023sequential].
    """
    _check_stream(x, y, block)
    if replays < 0 or learning_rate <= 0 or calibration_rate < 0:
        raise ValueError(
            "replays and calibration_rate must not be negative, learning_rate must be positive; "
            f"got {replays}, {calibration_rate} and {learning_rate}"
        )
    generator = stream(seed, "rehearsal")
    beta = torch.zeros((), requires_grad=True, device=x.device)
    steps = torch.optim.Adam(model.parameters(), lr=learning_rate)
    scale = torch.optim.Adam([beta], lr=calibration_rate)
    rows = []
    with threads_for(model, block):
        for start in tqdm(range(0, len(x), block), "blocks", disable=not progress, leave=False):
            end = min(start + block, len(x))
            loss = cross_entropy(_logits(model, x[start:end]) * beta.exp(), y[start:end])
            bits = float(loss.detach()) * (end - start) / math.log(2)
            if not math.isfinite(bits):
                raise ArithmeticError(
                    f"the loss is no longer finite after {start} samples with learning_rate="
                    f"{learning_rate}; a lower one may help"
                )
            rows.append((start, end - start, bits))
            scale.zero_grad()
            loss.backward()
            scale.step()
            again = torch.randint(end, (replays, block), generator=generator).to(x.device)
            for rows_of in [torch.arange(start, end, device=x.device), *again]:
                steps.zero_grad()
                cross_entropy(model(x[rows_of]), y[rows_of]).backward()
                steps.step()
    return pd.DataFrame(rows, columns=["seen", "samples", "bits"])


def intrinsic_dimension(x: Tensor, *, limit: int = 5000, seed: int = 0) -> dict[str, float]:
    """Return how many directions the inputs vary in locally, by two-NN and by maximum likelihood.

    Both read it off distances to nearest neighbours and are too low where the dimension is high
    for the number of samples, as 20 is for 5000. Samples that come twice count once.

    Args:
        x: inputs, shape (n_samples, ...).
        limit: samples that are taken, drawn without replacement.
        seed: of the drawing.
    Raises:
        ValueError: fewer than 30 different samples, or values on so coarse a grid that neighbours
            are equally far.
    Source: Facco et al. (2017) [facco2017estimating]; Levina & Bickel (2004)
        [levina2004maximum]; by scikit-dimension.
    """
    from skdim.id import MLE, TwoNN  # loads a compiler: seconds

    drawn = torch.randperm(len(x), generator=stream(seed, "dimension"))[:limit]
    points = np.unique(x[drawn.to(x.device)].flatten(1).double().cpu().numpy(), axis=0)
    if len(points) < 30:
        raise ValueError(f"at least 30 different samples are needed, got {len(points)}")
    if not np.isfinite(points).all():
        raise ValueError("the inputs hold values that are not finite")
    near = cKDTree(points).query(points, k=3)[0]
    tied = float((near[:, 2] - near[:, 1] <= 1e-9 * near[:, 2]).mean())
    if tied > _TIED:
        raise ValueError(
            f"{tied:.0%} of the samples have two nearest neighbours equally far: on so coarse a "
            "grid distances tell no dimension"
        )
    return {
        "two-NN": float(TwoNN().fit(points).dimension_),
        "maximum likelihood": float(MLE().fit(points).dimension_),
    }


def _grid(x: Tensor) -> np.ndarray:
    """Return the rank of each value among those that occur, as uint8 or uint16, shape as x."""
    if not torch.isfinite(x).all():
        raise ValueError("the inputs hold values that are not finite")
    values, codes = np.unique(x.detach().cpu().numpy(), return_inverse=True)
    if len(values) > _LEVELS:
        raise ValueError(
            f"the inputs take {len(values)} different values, a grid has {_LEVELS} at most: "
            "ibcore.discrete.quantise rounds them to one"
        )
    return codes.reshape(x.shape).astype(np.uint8 if len(values) <= 256 else np.uint16)


def _compressed(codes: np.ndarray) -> dict[str, float]:
    """Return bits a sample by each compressor; codes have shape (n_samples, ...)."""
    flat = codes.reshape(len(codes), -1)
    data = (np.packbits(flat, axis=1) if codes.max() < 2 else flat).tobytes()
    found = {
        "zstd": ZstdCompressor(level=19).compress(data),
        "xz": lzma.compress(data, preset=9),
    }
    if codes.ndim > 2 and codes.dtype == np.uint8:
        file = BytesIO()
        pictures = codes.reshape(-1, codes.shape[-1])  # below each other, channel by channel
        Image.fromarray(pictures).save(file, format="PNG", optimize=True)
        found["png"] = file.getvalue()
    return {name: 8 * len(content) / len(codes) for name, content in found.items()}


def _gaussian(codes: np.ndarray) -> float:
    """Return the mean code length of each half under a Gaussian fitted to the other, in bits.

    The noise of one level adds 1/12 to each variance of the half that is coded. It is not drawn,
    as the mean of the code length over it is known.
    """
    halves = [codes[0::2].astype(np.float64), codes[1::2].astype(np.float64)]
    lengths = []
    for fitted, coded in (halves, halves[::-1]):
        mean, unit = fitted.mean(0), np.eye(codes.shape[1]) / 12
        covariance = np.atleast_2d(np.cov(fitted.T, bias=True)) + unit
        away = coded - mean
        second = away.T @ away / len(coded) + unit
        log_det = np.linalg.slogdet(2 * math.pi * covariance)[1]
        lengths.append((log_det + np.trace(np.linalg.solve(covariance, second))) / math.log(4))
    return float(np.mean(lengths))


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    with _evaluation(model), torch.no_grad():
        logits: Tensor = model(x)
    return logits.detach()


def _check_labels(x: Tensor, y: Tensor) -> None:
    if y.shape != x.shape[:1] or y.is_floating_point():
        raise ValueError(
            f"{len(x)} samples need as many labels, whole numbers; got shape {tuple(y.shape)} of "
            f"{y.dtype}"
        )


def _check_stream(x: Tensor, y: Tensor, first: int) -> None:
    _check_labels(x, y)
    if not 1 <= first <= len(x):
        raise ValueError(f"a block holds 1 to {len(x)} samples, got {first}")
