"""Trained folds on another dataset, whose labels are mapped, beside their own held-out cases with the same labels."""

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
from autoseg.prediction.pipeline import Wanted
from autoseg.prediction.predictor import Predictor, trained_folds
from autoseg.prediction.validation import FOLDER as HELD_OUT
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.external import External
from autoseg.schema.frame import Row, Tabular
from autoseg.schema.plan import Splits
from autoseg.schema.scores import Scores
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import atomic_directory, read_artefact, write_artefact
from autoseg.support.workspace import Dataset, labels_folder

# In a fold's folder: external/<other dataset>/ holds masks, their scores and, in internal/, those of the fold's own cases.
FOLDER, INTERNAL, RECORD = "external", "internal", "external.json"
_BACKGROUND = "background"
_SHOWN = ("pooled.dice", "per_image.dice")


@dataclass(frozen=True, repr=False)
class Tested(Tabular):
    """One fold on another dataset. internal: its own held-out cases under the same labels."""

    folder: Path
    record: External
    external: Scores
    internal: Scores

    def summary(self) -> str:
        here, there = (side.overall.get("pooled.dice", math.nan) for side in (self.internal, self.external))
        record = self.record
        title = f"{record.model} fold {record.fold} on {record.external}"
        return f"{title}: Dice {there:.3f} pooled, {here:.3f} on {record.dataset}"

    def to_rows(self) -> list[Row]:
        record = self.record
        named = {"model": record.model, "fold": record.fold}
        sides = ((record.dataset, self.internal), (record.external, self.external))
        return [
            {**named, "dataset": name, "cases": len(side.cases), **{key: side.overall.get(key, math.nan) for key in _SHOWN}}
            for name, side in sides
        ]


@dataclass(frozen=True, kw_only=True)
class LabelMapping:
    """Both datasets' values -> values of `spec`, which holds the labels both share."""

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
) -> list[Tested]:
    """Predict and score every labelled case of `other` with each trained fold of a model by itself.

    labels: label of `dataset` -> label of `other` or "background"; not needed for labels of the same name, nor where both
    have one only. Raises AutosegError where labels cannot be matched, SeveralProblems where images cannot be predicted.
    """
    if other.name == dataset.name:
        raise AutosegError(f"{other.name} is what the model was trained on", "give another dataset to --external")
    found = trained_folds(dataset.results / model)
    chosen = sorted(found) if folds is None else list(folds)
    if not chosen or not set(chosen) <= set(found):
        raise AutosegError(
            f"{model} has no trained fold {', '.join(map(str, chosen))} on {dataset.name}",
            f"autoseg_train {dataset.number} {model} all",
        )
    raw = RawDataset.open(other)
    tested = []
    for fold in chosen:
        predictor = Predictor.load(dataset, model, [fold], device=device)
        mapping = match_labels(predictor.spec, raw.spec, labels or {})
        tested.append(_test(dataset, fold, predictor=predictor, other=other, raw=raw, mapping=mapping, tolerance=tolerance))
    return tested


def match_labels(ours: DatasetSpec, theirs: DatasetSpec, given: Mapping[str, str]) -> LabelMapping:
    """What both datasets' values become. Raises AutosegError for regions, and for labels without a counterpart, with the
    line to add."""
    if ours.label_scheme().regions or theirs.label_scheme().regions:
        raise AutosegError("regions cannot be mapped to other labels", "give a dataset with plain labels")
    own, others = ours.label_scheme(), theirs.label_scheme()
    mine, known = list(own.foreground), list(others.foreground)
    wrong = [f"{name} is none of {', '.join(mine)}" for name in given if name not in mine]
    wrong += [f"{name} is none of {', '.join(known)}" for name in given.values() if name not in [*known, _BACKGROUND]]
    if wrong:
        raise SeveralProblems("the mapping names labels that are not there:", wrong, "--map OURS=THEIRS")
    labels = {name: given.get(name) or _counterpart(name, mine, known) for name in mine}
    missing = [name for name, target in labels.items() if not target]
    if missing:
        lines = " ".join(f"--map {name}={'|'.join([*known, _BACKGROUND])}" for name in missing)
        raise AutosegError(f"no label of the other dataset is called {' or '.join(missing)}", f"say what it is: {lines}")
    shared = [name for name in known if name in labels.values()]
    if not shared:
        raise AutosegError("every label is mapped to background", "map at least one to a label of the other dataset")
    place = {_BACKGROUND: 0, **{name: index + 1 for index, name in enumerate(shared)}}
    spec_labels: dict[str, int | tuple[int, ...]] = dict(place)
    theirs_to = {members[0]: place.get(name, 0) for name, members in others.foreground.items()}
    if others.ignore is not None:
        spec_labels["ignore"] = theirs_to[others.ignore] = len(place)
    ours_to = {members[0]: place[str(labels[name])] for name, members in own.foreground.items()}
    if own.ignore is not None:
        # Only the fold's own references hold it; they are scored with the same description.
        spec_labels["ignore"] = ours_to[own.ignore] = len(place)
    spec = DatasetSpec(
        channel_names=theirs.channel_names, labels=spec_labels, numTraining=theirs.numTraining, file_ending=theirs.file_ending
    )
    ignored = tuple(name for name in known if name not in shared)
    return LabelMapping(
        spec=spec,
        ours=ours_to,
        theirs=theirs_to,
        labels={name: str(target) for name, target in labels.items()},
        ignored=ignored,
    )


def _counterpart(name: str, mine: Sequence[str], known: Sequence[str]) -> str | None:
    if name in known:
        return name
    return known[0] if len(mine) == len(known) == 1 else None


def _test(
    dataset: Dataset, fold: int, predictor: Predictor, other: Dataset, raw: RawDataset, mapping: LabelMapping, tolerance: float
) -> Tested:
    record = predictor.members[0].record
    home = dataset.fold(record.model, fold)
    ending = mask_ending(raw.spec.file_ending)
    jobs = [
        PredictionJob(name=case.name, images=case.images, output=case.name + ending, reference=case.label) for case in raw.cases
    ]
    with atomic_directory(home / FOLDER / other.name) as folder:
        report = predict_jobs(predictor, jobs, folder, Wanted())
        if report.failed:
            faults = [f"{name}: {problem}" for name, problem in report.failed.items()]
            raise SeveralProblems(f"cases of {other.name} cannot be predicted by fold {fold} of {record.model}:", faults)
        external = evaluate_folders(
            folder, labels_folder(other), mapping.spec, tolerance=tolerance, relabel=Relabel(mapping.ours, mapping.theirs)
        )
        held_out = read_artefact(home / "splits.json", Splits).folds[fold].validation
        internal = evaluate_folders(
            home / HELD_OUT, labels_folder(dataset), mapping.spec, cases=held_out, output=folder / INTERNAL,
            tolerance=tolerance, relabel=Relabel(mapping.ours, mapping.ours),
        )  # fmt: skip
        said = External(
            dataset=dataset.name,
            model=record.model,
            fold=fold,
            external=other.name,
            labels=mapping.labels,
            ignored=mapping.ignored,
            identity=record.identity,
        )
        write_artefact(folder / RECORD, said)
    return Tested(home / FOLDER / other.name, said, external, internal)
