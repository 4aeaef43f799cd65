"""A file of weights: small, without loss or with as much as the answer allows."""

from ibcore.codec.container import WeightFileError, coded_sizes, contents, load, pack, save, unpack
from ibcore.codec.quantise import quantise
from ibcore.codec.search import Compressed, compress
from ibcore.codec.tensors import Steps

__all__ = [
    "Compressed",
    "Steps",
    "WeightFileError",
    "coded_sizes",
    "compress",
    "contents",
    "load",
    "pack",
    "quantise",
    "save",
    "unpack",
]
