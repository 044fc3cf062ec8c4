"""The Python interface: one function per command, for scripts and notebooks.

    from autoseg import api
    api.convert_folders(images="photos", masks="masks", name="Polyp", labels=["background", "polyp"])
    api.plan_and_preprocess("Polyp", protocol="quick", models=["nnunet"])
    api.train("Polyp", "nnunet", folds=[0])
    mask = api.Predictor.load("Polyp", "nnunet")(array)

Every function takes `root`: the folder of raw/, preprocessed/ and results/; by default AUTOSEG_ROOT or ./autoseg_data.
User errors raise `AutosegError` with what to do. Nothing is printed: see `autoseg.support.log`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# Modules import their stage inside functions, so that scoring masks does not import torch.
from autoseg.api.audit import audit, correct
from autoseg.api.comparison import compare
from autoseg.api.conversion import convert, convert_folders
from autoseg.api.evaluation import evaluate, evaluate_external
from autoseg.api.explanation import explain
from autoseg.api.models import ModelCheck, ModelInfo, check_model, model_table
from autoseg.api.omnimodel import Omnimodel, ask_omnimodel
from autoseg.api.planning import decisions, fingerprint, plan_and_preprocess
from autoseg.api.prediction import export, find_best, predict, review_page
from autoseg.api.runner import grid_status, run
from autoseg.api.second_reader import predict_with_second_reader, study_readers
from autoseg.api.selection import select
from autoseg.api.splits import compare_splits, export_splits, splits_of
from autoseg.api.studies import check_study, run_study
from autoseg.api.training import TrainedFold, train
from autoseg.api.weights import (
    WeightsCheck,
    WeightsDownload,
    WeightsInfo,
    add_weights,
    export_weights,
    fetch_weights,
    verify_weights,
    weights_table,
)
from autoseg.support.errors import AutosegError

if TYPE_CHECKING:
    from autoseg.api.predictor import Predictor

__all__ = [
    "AutosegError",
    "ModelCheck",
    "ModelInfo",
    "Omnimodel",
    "Predictor",
    "TrainedFold",
    "WeightsCheck",
    "WeightsDownload",
    "WeightsInfo",
    "add_weights",
    "ask_omnimodel",
    "audit",
    "check_model",
    "check_study",
    "compare",
    "compare_splits",
    "convert",
    "convert_folders",
    "correct",
    "decisions",
    "evaluate",
    "evaluate_external",
    "explain",
    "export",
    "export_splits",
    "export_weights",
    "fetch_weights",
    "find_best",
    "fingerprint",
    "grid_status",
    "model_table",
    "plan_and_preprocess",
    "predict",
    "predict_with_second_reader",
    "review_page",
    "run",
    "run_study",
    "select",
    "splits_of",
    "study_readers",
    "train",
    "verify_weights",
    "weights_table",
]


def __getattr__(name: str) -> object:
    # Its module imports torch.
    if name == "Predictor":
        from autoseg.api.predictor import Predictor

        return Predictor
    raise AttributeError(f"module 'autoseg.api' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
