"""The stages, composed: what both the commands and a notebook call.

    from autoseg import api
    api.convert_folders(images="photos", masks="masks", name="Polyp", labels=["background", "polyp"])
    api.plan_and_preprocess("Polyp", protocol="quick", models=["nnunet"])
    api.train("Polyp", "nnunet", folds=[0])
    mask = api.Predictor.load("Polyp", "nnunet")(array)

Every function takes `root`: the folder of raw/, preprocessed/ and results/; by default AUTOSEG_ROOT or ./autoseg_data.
A mistake of the caller raises `AutosegError` (from `autoseg.support.errors`), which says what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Decision, Plan, Protocol, Splits
from autoseg.schema.run import RunRecord
from autoseg.schema.scores import Scores
from autoseg.support import log
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact, write_artefact
from autoseg.support.workspace import Dataset, Workspace, labels_folder

# The stages are imported where they are used: scoring masks should not wait for torch to load.
if TYPE_CHECKING:
    from autoseg.io.raw_dataset import RawDataset
    from autoseg.prediction.files import PredictionReport
    from autoseg.prediction.predictor import Predictor
    from dataset_conversion.folders import ConversionReport

__all__ = [
    "Predictor",
    "TrainedFold",
    "convert_folders",
    "decisions",
    "evaluate",
    "fingerprint",
    "model_table",
    "plan_and_preprocess",
    "predict",
    "train",
]

Root = str | Path | None


def __getattr__(name: str) -> Any:
    if name == "Predictor":
        from autoseg.prediction.predictor import Predictor

        return Predictor
    raise AttributeError(f"module 'autoseg.api' has no attribute {name!r}")


@dataclass(frozen=True)
class TrainedFold:
    """record: of the training. scores: of its best weights on the fold's held-out cases, at their original size.

    folder: where weights, curves and the held-out masks lie.
    """

    record: RunRecord
    scores: Scores
    folder: Path


def model_table() -> list[dict[str, Any]]:
    """One row per registered architecture; `parameters` of its default variant for 3 channels and 2 classes."""
    from autoseg import models as registry

    rows = []
    for name in registry.names():
        spec = registry.spec(name)
        rows.append(
            {
                "name": name,
                "title": spec.title,
                "family": spec.family,
                "variants": {variant.name: variant.parameters for variant in spec.variants},
                "default_variant": spec.default_variant,
                "parameters": spec.variant(spec.default_variant).parameters,
                "divisor": spec.divisor,
                "fixed_size": spec.fixed_size,
                "weights": sorted({weights.trained_on for weights in spec.weights}),
                "citation": spec.citation,
            }
        )
    return rows


def convert_folders(
    images: str | Path,
    masks: str | Path,
    name: str,
    number: int | None = None,
    labels: Sequence[str] | None = None,
    groups: str | None = None,
    channels: Sequence[str] | None = None,
    modality: str = "",
    overwrite: bool = False,
    root: Root = None,
) -> ConversionReport:
    """A folder of images and one of masks into raw/DatasetXXX_Name; every fault is listed before anything is written.

    labels: class names by value, background first. groups: a regular expression with one group that finds the patient in
    a file's name. modality: such as "ultrasound", where the images do not tell.
    """
    from dataset_conversion.folders import convert_folders as convert

    return convert(
        Path(images), Path(masks), name, number, labels, groups,
        workspace=Workspace.at(root), overwrite=overwrite, channels=channels, modality=modality,
    )  # fmt: skip


def fingerprint(dataset: str | int, root: Root = None) -> Fingerprint:
    """What can be measured of a raw dataset; written to fingerprint.json and reused while the files are the same."""
    from autoseg.fingerprint.measure import fingerprint_dataset

    return fingerprint_dataset(Workspace.at(root).dataset(dataset))


def plan_and_preprocess(
    dataset: str | int,
    *,
    protocol: Protocol = "auto",
    models: Sequence[str] | None = None,
    memory: int | str | None = None,
    device: str = "auto",
    settings: Mapping[str, str] | None = None,
    splits: str | Path | None = None,
    preprocess: bool = True,
    root: Root = None,
) -> Plan:
    """Fingerprint, plan for `models` (None: all), make the splits and the arrays. memory: what a training may take,
    in bytes or as "8G".

    settings: dotted field -> value, for example {"training.epochs": "50"}; what was set is recorded in the plan. splits: a
    file of your own (autoseg's or nnU-Net's form), checked for leaks; without it, splits made before are kept.
    """
    from autoseg import models as registry
    from autoseg.fingerprint.measure import fingerprint_dataset
    from autoseg.io.raw_dataset import RawDataset
    from autoseg.planning.planner import make_plan
    from autoseg.preprocessing.build import build_store

    found = Workspace.at(root).dataset(dataset)
    raw = RawDataset.open(found)
    seen = fingerprint_dataset(found)
    plan = make_plan(seen, raw.spec, protocol, models or registry.names(), memory, device, settings)
    write_artefact(found.splits, _splits(found, raw, seen, plan, Path(splits) if splits else None))
    write_artefact(found.plan, plan)
    log.say(f"{found.name}: {len(raw.cases)} cases, plan for {len(plan.models)} models in {found.plan}")
    if preprocess:
        for preparation in plan.preparations.values():
            build_store(found, raw, preparation)
    return plan


def decisions(plan: Plan) -> list[Decision]:
    """Every decision of a plan with its reason, what the user set included."""
    from autoseg.planning.explain import explain

    return explain(plan)


def train(
    dataset: str | int,
    model: str,
    folds: Iterable[int] | None = None,
    *,
    protocol: Protocol | None = None,
    settings: Mapping[str, str] | None = None,
    device: str = "auto",
    pretrained: str | None = None,
    restart: bool = False,
    root: Root = None,
) -> list[TrainedFold]:
    """Train `folds` (None: all), then predict and score each one's held-out cases. Cut-off runs go on where they were.

    A plan for another protocol than the one on disk is made first. settings change this training only.
    """
    from autoseg import models as registry
    from autoseg.io.raw_dataset import RawDataset
    from autoseg.planning.overrides import apply_overrides
    from autoseg.preprocessing.build import build_store
    from autoseg.training.fold import train_fold

    registry.spec(model)
    found = Workspace.at(root).dataset(dataset)
    plan = _plan_to_train(found, model, protocol, device, root)
    plan = apply_overrides(plan, settings or {})
    splits = read_artefact(found.splits, Splits, f"autoseg_plan_and_preprocess {found.number}")
    build_store(found, RawDataset.open(found), plan.preparations[plan.models[model].preparation])
    chosen = range(len(splits.folds)) if folds is None else folds
    trained = []
    for fold in chosen:
        if fold >= len(splits.folds):
            raise AutosegError(f"there is no fold {fold}", f"{found.name} is split into folds 0 to {len(splits.folds) - 1}")
        record = train_fold(found, plan, splits, model, fold, device=device, pretrained=pretrained, restart=restart)
        trained.append(TrainedFold(record, _score_fold(found, model, splits, fold, device), found.fold(model, fold)))
    return trained


def predict(
    images: str | Path,
    output: str | Path,
    dataset: str | int,
    model: str,
    folds: Sequence[int] | None = None,
    *,
    probabilities: bool = False,
    overlays: bool = False,
    references: str | Path | None = None,
    tta: bool = False,
    recursive: bool = False,
    overwrite: bool = True,
    device: str = "auto",
    root: Root = None,
) -> PredictionReport:
    """Masks for an image or a folder of images, written to `output` in each image's own size and geometry.

    folds: those to average, None for all that are trained. overlays: also pictures with the contours; references: a
    folder of masks to draw beside them. tta: average over mirrored views. recursive: subfolders too. overwrite: False
    leaves masks that are there.
    """
    from autoseg.prediction.files import predict_files
    from autoseg.prediction.predictor import Predictor

    predictor = Predictor.load(dataset, model, folds, device=device, tta=tta, root=root)
    return predict_files(
        predictor,
        Path(images),
        Path(output),
        probabilities=probabilities,
        overlays=overlays,
        references=Path(references) if references else None,
        recursive=recursive,
        overwrite=overwrite,
    )


def evaluate(predictions: str | Path, references: str | Path, output: str | Path | None = None) -> Scores:
    """Scores of a folder of masks, written as scores.json and scores.csv into `output` (default: beside the masks)."""
    from autoseg.evaluation.evaluate import evaluate_folders

    return evaluate_folders(Path(predictions), Path(references), output=Path(output) if output else None)


def _splits(found: Dataset, raw: RawDataset, seen: Fingerprint, plan: Plan, given: Path | None) -> Splits:
    """Given splits, else those on disk while they fit cases and settings (a person may have made them), else new ones."""
    from autoseg.planning.splits import check_splits, make_splits, read_splits

    if given is not None:
        return read_splits(given, seen, raw.spec)
    if found.splits.exists():
        splits = read_artefact(found.splits, Splits, f"delete {found.splits} to have it made again")
        asked = {"training.folds", "training.seed"} & set(plan.overrides)
        if {case for fold in splits.folds for case in fold.validation} != {case.name for case in raw.cases}:
            log.warn(f"the cases of {found.name} have changed: trainings on the new splits do not compare with older ones")
        elif not asked or (len(splits.folds), splits.seed) == (plan.training.folds, plan.training.seed):
            check_splits(splits, seen, raw.spec)
            return splits
        else:
            log.warn(f"new splits of {found.name}, as set: trainings on them do not compare with older ones")
    return make_splits(seen, raw.spec, plan.training.folds, plan.training.seed)


def _plan_to_train(found: Dataset, model: str, protocol: Protocol | None, device: str, root: Root) -> Plan:
    remedy = f"autoseg_plan_and_preprocess {found.number}"
    if not found.plan.exists():
        log.say(f"{found.name} is not planned yet: planning it now")
        return plan_and_preprocess(found.name, protocol=protocol or "auto", models=[model], device=device, root=root)
    plan = read_artefact(found.plan, Plan, remedy)
    if protocol is not None and plan.protocol != protocol:
        log.say(f"{found.name} is planned for {plan.protocol}: planning it for {protocol} now")
        return plan_and_preprocess(found.name, protocol=protocol, models=list(plan.models), device=device, root=root)
    if model not in plan.models:
        raise AutosegError(
            f"the plan of {found.name} is for {', '.join(plan.models)}, not for {model}",
            f"{remedy} --protocol {plan.protocol} --models {','.join([*plan.models, model])}",
        )
    return plan


def _score_fold(found: Dataset, model: str, splits: Splits, fold: int, device: str) -> Scores:
    from autoseg.evaluation.evaluate import evaluate_folders
    from autoseg.prediction.validation import predict_fold

    folder = predict_fold(found, model, fold, device=device)
    return evaluate_folders(folder, labels_folder(found), cases=splits.folds[fold].validation)
