"""Information flow through neural networks: hooks, training, estimators, information planes."""

import importlib
from types import ModuleType

from ibcore import capacity, estimators, models, snr
from ibcore.capacity import diagnose
from ibcore.data import Dataset, DataUnavailableError, load
from ibcore.ensemble import fit_ensemble
from ibcore.estimators import DivergedError
from ibcore.hooks import ActivationTracker, GradientTracker, Intervention
from ibcore.interface import Estimate, Estimator, MutualInformation
from ibcore.plane import InformationPlane
from ibcore.recorder import PlaneRecorder, information_plane
from ibcore.training import History, Snapshot, TrainingDivergedError, fit, snapshot_epochs

__version__ = "0.1.0"

__all__ = [
    "ActivationTracker",
    "DataUnavailableError",
    "Dataset",
    "DivergedError",
    "Estimate",
    "Estimator",
    "GradientTracker",
    "History",
    "InformationPlane",
    "Intervention",
    "MutualInformation",
    "PlaneRecorder",
    "Snapshot",
    "TrainingDivergedError",
    "capacity",
    "claims",
    "diagnose",
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


def __getattr__(name: str) -> ModuleType:
    """Import what only figures and ledgers need when it is asked for, matplotlib above all."""
    if name in ("claims", "plotting"):
        return importlib.import_module(f"ibcore.{name}")
    raise AttributeError(f"module 'ibcore' has no attribute {name!r}")
