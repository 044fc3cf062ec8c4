"""Which labels a folder of masks has, and which of two folders are the predictions."""

from __future__ import annotations

import logging
from pathlib import Path

from autoseg.io.raw_dataset import read_description
from autoseg.schema.dataset import DatasetSpec, LabelScheme, label_scheme
from autoseg.schema.prediction import PredictionRecord
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact

logger = logging.getLogger(__name__)

_RECORD, _DESCRIPTION = "prediction.json", "dataset.json"


def is_prediction_folder(folder: Path) -> bool:
    """Whether autoseg wrote the masks of a folder."""
    return (folder / _RECORD).is_file()


def find_scheme(predictions: Path, references: Path) -> tuple[LabelScheme | None, str]:
    """The labels by dataset.json in or above the references, else by prediction.json, and the file's name; None without any.

    Raises AutosegError for contradictory labels, or if a class has different values in both files.
    """
    path = _description_of(references)
    record = _read_record(predictions)
    spec = None if path is None else read_description(path)
    if spec is None or path is None:
        return None if record is None else _scheme_of_record(record), _RECORD
    if record is not None:
        _check_agreement(record, predictions / _RECORD, spec, path)
    return scheme_of(spec), _DESCRIPTION


def scheme_of(spec: DatasetSpec) -> LabelScheme:
    """The label scheme of a dataset. Raises AutosegError for contradictory labels."""
    try:
        return spec.label_scheme()
    except ValueError as error:
        raise AutosegError(f"{_DESCRIPTION}: {error}", "correct the labels in this file") from error


def check_order(predictions: Path, references: Path) -> None:
    """Raises AutosegError if the folders are given in the wrong order."""
    if is_prediction_folder(predictions):
        return
    described = [_description_of(folder) is not None for folder in (predictions, references)]
    if is_prediction_folder(references):
        reason = f"{references} holds the masks of a prediction ({_RECORD}), {predictions} does not"
    elif described == [True, False]:
        reason = f"{predictions} holds the labels of a dataset ({_DESCRIPTION}), {references} does not"
    else:
        return
    raise AutosegError(
        f"the folders seem to be swapped: {reason}",
        f"first the predictions, then the references: autoseg_evaluate {references} {predictions}",
    )


def _description_of(folder: Path) -> Path | None:
    """dataset.json in a folder of masks or above it."""
    paths = (parent / _DESCRIPTION for parent in (folder, folder.absolute().parent))
    return next((path for path in paths if path.is_file()), None)


def _read_record(predictions: Path) -> PredictionRecord | None:
    if not is_prediction_folder(predictions):
        return None
    return read_artefact(predictions / _RECORD, PredictionRecord, "predict again, or delete the file")


def _scheme_of_record(record: PredictionRecord) -> LabelScheme:
    # The order of regions matters for writing masks only.
    regions = [name for name in record.labels if name not in ("background", "ignore")]
    try:
        return label_scheme(record.labels, tuple(range(1, len(regions) + 1)))
    except ValueError as error:
        raise AutosegError(f"{_RECORD}: {error}", "predict again, or delete the file") from error


def _check_agreement(record: PredictionRecord, record_path: Path, spec: DatasetSpec, path: Path) -> None:
    for name in record.labels.keys() & spec.labels.keys():
        if _values(record.labels[name]) != _values(spec.labels[name]):
            raise AutosegError(
                f"{name} is {record.labels[name]} in {record_path} and {spec.labels[name]} in {path}",
                "test networks on a dataset with other labels with autoseg_evaluate DATASET --external OTHER",
            )
    unknown = sorted(record.labels.keys() - spec.labels.keys() - {"ignore"})
    if unknown:
        logger.warning(f"{path} does not name {', '.join(unknown)} of {record_path}: classes are matched by their numbers")


def _values(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)
