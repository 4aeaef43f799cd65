"""Data sets: the 12-bit data, Cora, names and MNIST; original or, by name, a stand-in."""

from ibcore.data.dataset import Dataset
from ibcore.data.loading import load
from ibcore.data.originals import DataUnavailableError

__all__ = ["DataUnavailableError", "Dataset", "load"]
