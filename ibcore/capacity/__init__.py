"""How large a layer had to be: what is used of it, what the answer needs, what it can hold."""

from ibcore.capacity.memory import memory_capacity
from ibcore.capacity.rank import functional_ranks
from ibcore.capacity.saturation import SaturationTracker, Used, used
from ibcore.capacity.weights import weight_bits

__all__ = [
    "SaturationTracker",
    "Used",
    "functional_ranks",
    "memory_capacity",
    "used",
    "weight_bits",
]
