"""Estimators of mutual information, in bits; one file an estimator."""

from ibcore.estimators import noise
from ibcore.estimators.binning import Binning
from ibcore.estimators.exact import Exact, MonteCarlo, quantise
from ibcore.estimators.ksg import Ksg
from ibcore.estimators.neural import DivergedError, InfoNCE, Mine, Nwj, Smile
from ibcore.estimators.noise import Noisy
from ibcore.estimators.pairwise import Pairwise
from ibcore.estimators.renyi import Renyi

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
    "noise",
    "quantise",
]
