"""Results folders as trainings leave them, made without training: masks are references moved and worn by a model's skill."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from autoseg.evaluation.evaluate import evaluate_folders
from autoseg.fingerprint.measure import fingerprint_dataset
from autoseg.io import write_image, write_label
from autoseg.io.raw_dataset import write_description
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Fold, ModelPlan, Normalisation, Plan, PreprocessingConfig, Splits, Training
from autoseg.schema.prediction import Confidence, PredictedCase, PredictionRecord
from autoseg.schema.run import RunRecord
from autoseg.support.files import read_artefact, write_artefact, write_text
from autoseg.support.workspace import Dataset, Workspace
from tests.generated import SPECIFICATION, case_name, draw

# Model -> how many pixels its masks are off by, and the share of cases it gets quite wrong.
SKILLS = {
    "unet": (3.0, 0.2), "segformer": (1.0, 0.0), "segnext": (1.6, 0.1), "hiformer": (2.0, 0.1), "dinov2": (0.6, 0.0),
    "timm:resnet18.a1_in1k": (1.2, 0.0),
}  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """What was made. dataset: of `root`."""

    root: Path
    dataset: Dataset
    splits: Splits


def make(
    root: Path,
    kind: str = "polyps",
    cases: int = 20,
    folds: int = 5,
    models: tuple[str, ...] = ("unet", "segformer", "segnext"),
) -> Experiment:
    """A raw dataset of generated images and, for each model, finished folds with masks, scores and logs."""
    dataset = Workspace.at(root).new_dataset(501, kind.title())
    names = [case_name(kind, index) for index in range(cases)]
    labels = {name: value for value, name in enumerate(SPECIFICATION[kind].labels)}
    groups = {name: name.split("_")[0] for name in names} if kind == "heart" else {}
    spec = DatasetSpec(
        channel_names={"0": "R", "1": "G", "2": "B"},
        labels=labels,
        numTraining=cases,
        file_ending=".png",
        name=dataset.name,
        groups=groups,
    )
    if kind == "heart":
        spec = replace(spec, channel_names={"0": "mr"})
    for index, name in enumerate(names):
        image, label = draw(kind, index)
        write_image(dataset.raw / "imagesTr" / f"{name}_0000.png", image[None] if image.ndim == 2 else image.transpose(2, 0, 1))
        write_label(dataset.raw / "labelsTr" / f"{name}.png", label)
    write_description(dataset.description, spec)
    fingerprint_dataset(dataset)
    held_out = [tuple(names[fold::folds]) for fold in range(folds)]
    splits = Splits(folds=tuple(Fold(tuple(n for n in names if n not in part), part) for part in held_out), reason="in turn")
    experiment = Experiment(root, dataset, splits)
    for model in models:
        for fold in range(folds):
            write_fold(experiment, spec, model, fold)
    return experiment


def plan_of(dataset: Dataset, model: str, spec: DatasetSpec, epochs: int = 4) -> Plan:
    channels = len(spec.channel_names)
    normalisation = Normalisation(scheme="constant", mean=(0.0,) * channels, std=(255.0,) * channels)
    preprocessing = PreprocessingConfig(key="resize_64x64", geometry="resize", dtype="uint8", channels=channels, size=(64, 64))
    parameters = 1_000_000 * (1 + len(model))
    chosen = ModelPlan(
        model=model, variant="tiny", input_size=(64, 64), batch_size=8, accumulate=1, precision="fp32", pretrained="none",
        learning_rate=1e-3, warmup_epochs=0, normalisation=normalisation, preprocessing=preprocessing.key,
        parameters=parameters, flops=10**9 * len(model), memory=2**28,
    )  # fmt: skip
    training = Training(epochs=epochs, loss="dice_ce", learning_rates=(1e-3,))
    measured = read_artefact(dataset.fingerprint, Fingerprint)
    return Plan(
        dataset=dataset.name, protocol="quick", content_hash=measured.content_hash, memory_budget=2**32, device="cpu",
        channels=channels, training=training, preprocessing={preprocessing.key: preprocessing}, models={model: chosen},
        decisions=(),
    )


def write_fold(experiment: Experiment, spec: DatasetSpec, model: str, fold: int, **changes: object) -> Path:
    """One finished fold. changes: fields of its run record, or `plan`."""
    folder = experiment.dataset.fold(model, fold)
    plan = changes.pop("plan", None) or plan_of(experiment.dataset, model, spec)
    record = RunRecord(
        dataset=experiment.dataset.name, model=model, variant="tiny", fold=fold, protocol="quick",
        identity=f"{model}{fold}", seed=0, device="cpu", precision="fp32", status="finished",
        epochs_planned=4, epochs_done=4, best_epoch=3,
        parameters=1_000_000 * (1 + len(model)), steps=40, epoch_seconds=1.5 * len(model), seconds=6.0 * len(model),
        peak_memory=2**29,
    )  # fmt: skip
    write_artefact(folder / "run.json", replace(record, **changes))
    write_artefact(folder / "plan.json", plan)
    write_artefact(folder / "dataset.json", spec)
    write_artefact(folder / "splits.json", experiment.splits)
    (folder / "best.pt").write_bytes(b"weights")
    rows = [f"{epoch},{1 / epoch:.3f},0.001,{0.2 * epoch:.2f}" for epoch in range(1, 5)]
    write_text(folder / "metrics.csv", "\n".join(["epoch,loss,learning_rate,dice", *rows]) + "\n")
    masks = folder / "validation"
    predicted = []
    for case in experiment.splits.folds[fold].validation:
        label = cv2.imread(str(experiment.dataset.raw / "labelsTr" / f"{case}.png"), cv2.IMREAD_UNCHANGED)
        mask, off = worn(label, model, case)
        write_label(masks / f"{case}.png", mask)
        sure = Confidence(
            value=1 - off / 20, expected_dice=float("nan"), soft_dice=1 - off / 20, agreement=float("nan"), entropy=0.1,
            classes={},
        )
        predicted.append(PredictedCase(
            case=case, output=f"{case}.png", size=label.shape, pixels={}, seconds={"network": 0.01 * len(model)},
            confidence=sure,
        ))
    write_artefact(
        masks / "prediction.json",
        PredictionRecord(
            dataset=experiment.dataset.name, models=(model,), folds=(fold,),
            identities={f"{model}/fold_{fold}": f"{model}{fold}"}, labels=spec.labels, mirror=(), device="cpu",
            precision="fp32", seconds=1.0, cases=tuple(predicted),
        ),
    )  # fmt: skip
    evaluate_folders(masks, experiment.dataset.raw / "labelsTr", cases=experiment.splits.folds[fold].validation, workers=1)
    return folder


def worn(label: np.ndarray, model: str, case: str) -> tuple[np.ndarray, float]:
    """A mask of a model's skill, and by how many pixels it is off."""
    pixels, wrong = SKILLS[model]
    rng = np.random.default_rng([*model.encode(), *case.encode()])
    off = 12.0 if rng.random() < wrong else pixels * rng.random() * 2
    angle = rng.random() * 2 * np.pi
    move = np.float32([[1, 0, off * np.cos(angle)], [0, 1, off * np.sin(angle)]])
    return cv2.warpAffine(label, move, label.shape[::-1], flags=cv2.INTER_NEAREST), off
