"""Every figure of the book, in one style; each function returns its matplotlib figure."""

from ibcore.plotting.curves import (
    accuracy,
    curves,
    distances,
    gradient_snr,
    layers,
    searches,
    sensitivity,
    strips,
)
from ibcore.plotting.planes import information_plane, traces
from ibcore.plotting.sizes import growth, rates, trades
from ibcore.plotting.style import STYLE

__all__ = [
    "STYLE",
    "accuracy",
    "curves",
    "distances",
    "gradient_snr",
    "growth",
    "information_plane",
    "layers",
    "rates",
    "searches",
    "sensitivity",
    "strips",
    "traces",
    "trades",
]
