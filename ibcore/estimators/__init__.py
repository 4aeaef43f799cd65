"""Estimators of mutual information, in bits; one file an estimator."""

from ibcore.estimators import noise
from ibcore.estimators.binning import Binning
from ibcore.estimators.pairwise import Pairwise

__all__ = ["Binning", "Pairwise", "noise"]
