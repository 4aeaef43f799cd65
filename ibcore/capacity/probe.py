"""What a linear reader finds in each layer."""

from typing import Any

from sklearn.linear_model import RidgeClassifier
from torch import Tensor, nn

from ibcore.hooks import ActivationTracker
from ibcore.layers import Layers


def linear_probes(
    model: nn.Module, x: Tensor, y: Tensor, *args: Any, train: Tensor, test: Tensor,
    layers: Layers = None,
) -> dict[str, float]:  # fmt: skip
    """Return for each layer the share of held-out samples that a linear reader of it gets right.

    The reader is fitted by least squares to ±1 for each class, with a little ridge: one answer, in
    one step. Near the accuracy of the network itself, what lies behind the layer adds nothing that
    a linear map would not.

    Args:
        model: any `nn.Module`.
        x: inputs, shape (n_samples, ...).
        y: labels, shape (n_samples,).
        args: further inputs of the model, passed whole.
        train: indices of the samples that the reader learns from.
        test: indices of those that it is tried on.
        layers: see `select_layers`; what they put out is flattened.
    Raises:
        ValueError: no samples on one of the sides, or labels that are not one a sample.
    Source: Alain & Bengio (2017) [alain2017understanding]; by scikit-learn.
    """
    if not len(train) or not len(test) or y.shape != x.shape[:1]:
        raise ValueError(
            f"{len(train)} samples to learn from, {len(test)} to try on and labels of shape "
            f"{tuple(y.shape)} for {len(x)} samples: each side needs some, and one label a sample"
        )
    with ActivationTracker(model, layers) as tracker:
        collected = tracker.collect(x, *args, batch_size=None if args else 4096)
    labels, found = y.cpu().numpy(), {}
    fitted, tried = train.cpu().numpy(), test.cpu().numpy()
    for name, z in collected.items():
        points = z.flatten(1).double().cpu().numpy()
        scale = points[fitted].std() or 1.0
        reader = RidgeClassifier(alpha=1e-3).fit(points[fitted] / scale, labels[fitted])
        found[name] = float(reader.score(points[tried] / scale, labels[tried]))
    return found
