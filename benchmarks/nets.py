"""The three networks that the compression of others is known of; needs torch alone."""

from itertools import pairwise

from torch import nn


def fully_connected(*widths: int) -> nn.Sequential:
    """Return a network with ReLU between its layers."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def lenet5() -> nn.Sequential:
    """Return the LeNet-5 of 431 080 parameters (Caffe's), as pruning papers take it."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip


NETS = {
    "A": lambda: fully_connected(784, 300, 100, 10),
    "B": lambda: fully_connected(784, 1024, 20, 20, 20, 10),
    "C": lenet5,
}
EPOCHS = {"A": 12, "B": 12, "C": 6}
