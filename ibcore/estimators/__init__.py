"""Estimators of mutual information, in bits; one file an estimator."""

import math
from collections.abc import Sequence

from ibcore.estimators import noise
from ibcore.estimators.binning import Binning
from ibcore.estimators.bound import DivergedError
from ibcore.estimators.distances import distance_histogram
from ibcore.estimators.exact import Exact
from ibcore.estimators.ksg import Ksg
from ibcore.estimators.montecarlo import MonteCarlo
from ibcore.estimators.neural import InfoNCE, Mine, Nwj, Smile
from ibcore.estimators.noisy import Noisy
from ibcore.estimators.pairwise import Pairwise
from ibcore.estimators.renyi import Renyi
from ibcore.interface import Estimator

_OF_SAMPLES = (InfoNCE, Ksg, Mine, Nwj, Renyi, Smile)  # they see nothing but samples of T


def named(names: Sequence[str], noise_variance: float = 0.1) -> list[Estimator]:
    """Return estimators by the names of their classes, all for the same scale.

    `Pairwise` and `MonteCarlo` assume noise of variance σ²; in front of those that see only
    samples it is added; bins are σ wide; `Exact` takes the layer as it is.

    Args:
        names: such as ["Ksg", "InfoNCE"].
        noise_variance: σ², in the squared unit of the layers.
    Raises:
        ValueError: a name that no estimator has.
    """
    known: dict[str, Estimator] = {
        "Binning": Binning(width=math.sqrt(noise_variance)),
        "Exact": Exact(),
        "MonteCarlo": MonteCarlo(noise_variance),
        "Pairwise": Pairwise(noise_variance),
        **{kind.__name__: Noisy(kind(), noise_variance) for kind in _OF_SAMPLES},
    }
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no estimator is called {unknown}: there are {sorted(known)}")
    return [known[name] for name in names]


__all__ = [
    "Binning",
    "DivergedError",
    "Exact",
    "InfoNCE",
    "Ksg",
    "Mine",
    "MonteCarlo",
    "Noisy",
    "Nwj",
    "Pairwise",
    "Renyi",
    "Smile",
    "distance_histogram",
    "named",
    "noise",
]
