"""Information flow through neural networks: hooks, training, estimators, information planes."""

from ibcore import claims, estimators, models, plotting, snr
from ibcore.data import Dataset, load
from ibcore.ensemble import fit_ensemble
from ibcore.hooks import ActivationTracker, GradientTracker
from ibcore.interface import Estimator, MutualInformation
from ibcore.plane import InformationPlane
from ibcore.recorder import PlaneRecorder, information_plane
from ibcore.training import History, Snapshot, fit, snapshot_epochs

__version__ = "0.1.0"

__all__ = [
    "ActivationTracker",
    "Dataset",
    "Estimator",
    "GradientTracker",
    "History",
    "InformationPlane",
    "MutualInformation",
    "PlaneRecorder",
    "Snapshot",
    "claims",
    "estimators",
    "fit",
    "fit_ensemble",
    "information_plane",
    "load",
    "models",
    "plotting",
    "snapshot_epochs",
    "snr",
]
