"""External validation: trained folds on another dataset, and on their own held-out cases with the same mapped labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.evaluation.case import Relabel
from autoseg.evaluation.evaluate import TOLERANCE, evaluate_folders
from autoseg.io import mask_ending
from autoseg.io.raw_dataset import RawDataset
from autoseg.prediction.files import predict_jobs
from autoseg.prediction.inputs import PredictionJob
from autoseg.prediction.pipeline import OutputOptions
from autoseg.prediction.predictor import Predictor, trained_folds
from autoseg.prediction.validation import FOLDER as HELD_OUT
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.external import External
from autoseg.schema.frame import Row, Tabular
from autoseg.schema.scores import Scores
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import atomic_directory, write_artefact
from autoseg.support.workspace import Dataset
from autoseg.training.checkpoint import read_split

# In a fold's folder: external/<other dataset>/ has masks and scores; its internal/ has the scores of the fold's own cases.
FOLDER, INTERNAL, RECORD = "external", "internal", "external.json"
_BACKGROUND = "background"
_SHOWN = ("micro.dice", "class_mean.dice", "per_image.dice")


@dataclass(frozen=True, repr=False)
class ExternalResult(Tabular):
    """Scores of one fold on another dataset. internal: on its own held-out cases, with the same labels."""

    folder: Path
    record: External
    external: Scores
    internal: Scores

    def summary(self) -> str:
        internal, external = (scores.overall.get("micro.dice", math.nan) for scores in (self.internal, self.external))
        record = self.record
        title = f"{record.model} fold {record.fold} on {record.external}"
        return f"{title}: mDSC {external:.3f}, {internal:.3f} on {record.dataset}"

    def to_rows(self) -> list[Row]:
        record = self.record
        common = {"model": record.model, "fold": record.fold}
        scores = ((record.dataset, self.internal), (record.external, self.external))
        return [
            {**common, "dataset": name, "cases": len(one.cases), **{key: one.overall.get(key, math.nan) for key in _SHOWN}}
            for name, one in scores
        ]


@dataclass(frozen=True, kw_only=True)
class LabelMapping:
    """Values of both datasets -> values of `spec`, which declares the common labels.

    labels: label of the model -> label of the other dataset. ignored: labels of the other dataset without a counterpart.
    """

    spec: DatasetSpec
    ours: dict[int, int]
    theirs: dict[int, int]
    labels: dict[str, str]
    ignored: tuple[str, ...]


def evaluate_external(
    dataset: Dataset,
    model: str,
    other: Dataset,
    labels: Mapping[str, str] | None = None,
    *,
    folds: Sequence[int] | None = None,
    device: str = "auto",
    tolerance: float = TOLERANCE,
) -> list[ExternalResult]:
    """Predict and score every labelled case of `other` with each trained fold of a model separately.

    labels: label of `dataset` -> label of `other` or "background"; not needed for labels of the same name, or if both
    datasets have one label only. Raises AutosegError if labels cannot be matched, SeveralProblems if images cannot be
    predicted.
    """
    if other.name == dataset.name:
        raise AutosegError(f"{other.name} is the training dataset of the model", "give another dataset to --external")
    trained = trained_folds(dataset.model(model))
    chosen = sorted(trained) if folds is None else list(folds)
    if not chosen or not set(chosen) <= set(trained):
        raise AutosegError(
            f"{model} has no trained fold {', '.join(map(str, chosen))} on {dataset.name}",
            f"autoseg_train {dataset.number} {model} all",
        )
    raw = RawDataset.open(other)
    results = []
    for fold in chosen:
        predictor = Predictor.load(dataset, model, [fold], device=device)
        mapping = match_labels(predictor.spec, raw.spec, labels or {})
        results.append(
            _evaluate_fold(dataset, fold, predictor=predictor, other=other, raw=raw, mapping=mapping, tolerance=tolerance)
        )
    return results


def match_labels(ours: DatasetSpec, theirs: DatasetSpec, mapping: Mapping[str, str]) -> LabelMapping:
    """Match the labels of two datasets. Raises AutosegError for regions and for labels without a counterpart, with the option
    to add."""
    if ours.label_scheme().regions or theirs.label_scheme().regions:
        raise AutosegError("regions cannot be mapped to other labels", "give a dataset with plain labels")
    own_scheme, other_scheme = ours.label_scheme(), theirs.label_scheme()
    own_names, other_names = list(own_scheme.foreground), list(other_scheme.foreground)
    unknown = [f"{name} is not one of {', '.join(own_names)}" for name in mapping if name not in own_names]
    unknown += [
        f"{name} is not one of {', '.join(other_names)}" for name in mapping.values() if name not in [*other_names, _BACKGROUND]
    ]
    if unknown:
        raise SeveralProblems("the mapping names labels that do not exist:", unknown, "--map OURS=THEIRS")
    labels = {name: mapping.get(name) or _matching_label(name, own_names, other_names) for name in own_names}
    missing = [name for name, target in labels.items() if not target]
    if missing:
        lines = " ".join(f"--map {name}={'|'.join([*other_names, _BACKGROUND])}" for name in missing)
        raise AutosegError(f"the other dataset has no label named {' or '.join(missing)}", f"add {lines}")
    shared = [name for name in other_names if name in labels.values()]
    if not shared:
        raise AutosegError("every label is mapped to background", "map at least one to a label of the other dataset")
    place = {_BACKGROUND: 0, **{name: index + 1 for index, name in enumerate(shared)}}
    spec_labels: dict[str, int | tuple[int, ...]] = dict(place)
    theirs_to = {members[0]: place.get(name, 0) for name, members in other_scheme.foreground.items()}
    if other_scheme.ignore is not None:
        spec_labels["ignore"] = theirs_to[other_scheme.ignore] = len(place)
    ours_to = {members[0]: place[str(labels[name])] for name, members in own_scheme.foreground.items()}
    if own_scheme.ignore is not None:
        # Only the references of the fold itself use it; they are scored with the same spec.
        spec_labels["ignore"] = ours_to[own_scheme.ignore] = len(place)
    spec = DatasetSpec(
        channel_names=theirs.channel_names, labels=spec_labels, numTraining=theirs.numTraining, file_ending=theirs.file_ending
    )
    ignored = tuple(name for name in other_names if name not in shared)
    return LabelMapping(
        spec=spec,
        ours=ours_to,
        theirs=theirs_to,
        labels={name: str(target) for name, target in labels.items()},
        ignored=ignored,
    )


def _matching_label(name: str, own_names: Sequence[str], other_names: Sequence[str]) -> str | None:
    if name in other_names:
        return name
    return other_names[0] if len(own_names) == len(other_names) == 1 else None


def _evaluate_fold(
    dataset: Dataset, fold: int, predictor: Predictor, other: Dataset, raw: RawDataset, mapping: LabelMapping, tolerance: float
) -> ExternalResult:
    record = predictor.members[0].record
    fold_folder = dataset.fold(record.model, fold)
    ending = mask_ending(raw.spec.file_ending)
    jobs = [
        PredictionJob(name=case.name, images=case.images, output=case.name + ending, reference=case.label) for case in raw.cases
    ]
    with atomic_directory(fold_folder / FOLDER / other.name, RECORD, External) as folder:
        report = predict_jobs(predictor, jobs, folder, OutputOptions())
        if report.failed:
            faults = [f"{name}: {problem}" for name, problem in report.failed.items()]
            raise SeveralProblems(f"cases of {other.name} cannot be predicted by fold {fold} of {record.model}:", faults)
        external = evaluate_folders(
            folder, raw.references, mapping.spec, tolerance=tolerance, relabel=Relabel(mapping.ours, mapping.theirs)
        )
        held_out = read_split(fold_folder, fold).validation
        internal = evaluate_folders(
            fold_folder / HELD_OUT, RawDataset.open(dataset).references, mapping.spec, cases=held_out,
            output=folder / INTERNAL, tolerance=tolerance, relabel=Relabel(mapping.ours, mapping.ours),
        )  # fmt: skip
        result = External(
            dataset=dataset.name,
            model=record.model,
            fold=fold,
            external=other.name,
            labels=mapping.labels,
            ignored=mapping.ignored,
            identity=record.identity,
        )
        write_artefact(folder / RECORD, result)
    return ExternalResult(fold_folder / FOLDER / other.name, result, external, internal)
