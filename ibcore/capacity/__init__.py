"""How large a layer had to be: what is used of it, what the answer needs, what it can hold."""

from ibcore.capacity.data import (
    data_bits,
    intrinsic_dimension,
    label_information,
    prequential_by_blocks,
    prequential_by_rehearsal,
)
from ibcore.capacity.memorised import memorised_bits
from ibcore.capacity.memory import memory_capacity
from ibcore.capacity.probe import linear_probes
from ibcore.capacity.rank import functional_ranks
from ibcore.capacity.saturation import SaturationTracker, Used, used
from ibcore.capacity.shape import initial_widths
from ibcore.capacity.verdict import diagnose
from ibcore.capacity.weights import weight_bits

__all__ = [
    "SaturationTracker",
    "Used",
    "data_bits",
    "diagnose",
    "functional_ranks",
    "initial_widths",
    "intrinsic_dimension",
    "label_information",
    "linear_probes",
    "memorised_bits",
    "memory_capacity",
    "prequential_by_blocks",
    "prequential_by_rehearsal",
    "used",
    "weight_bits",
]
