"""A prepared dataset of a few discs and a network of a few weights, so that a training takes a second."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.io.raw_dataset import write_description
from autoseg.models.base import ModelOutput, ModelSpec, SegmentationNetwork, Variant
from autoseg.preprocessing.array_dataset import array_writer
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.plan import Augmentation, Fold, ModelPlan, Normalisation, Plan, PreprocessingConfig, Splits, Training
from autoseg.schema.run import RunRecord
from autoseg.support.extensions import MODELS
from autoseg.support.log import configure_logging
from autoseg.support.workspace import Dataset, Workspace
from autoseg.training import train_fold, trainer
from autoseg.training.losses import Loss
from autoseg.training.step import Step

NAME = "tiny"
SPEC = ModelSpec(
    name=NAME,
    title="Tiny",
    family="specialist",
    citation="none",
    variants=(Variant("one", 0), Variant("two", 0)),
    default_variant="one",
    divisor=4,
)
CASES = tuple(f"case_{index:02d}" for index in range(14))
SIDE = 32


class Tiny(SegmentationNetwork):
    """Batch norm, dropout and an auxiliary head: whatever a resumed run could get wrong."""

    divisor = 4

    def __init__(self, in_channels: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_channels, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout2d(0.2))
        self.head = nn.Conv2d(width, num_classes, 1)
        self.coarse = nn.Conv2d(width, num_classes, 1)
        self.head_weights = ("head.weight", "head.bias", "coarse.weight", "coarse.bias")

    def segment(self, x: Tensor) -> ModelOutput:
        stem = self.stem(x)
        return ModelOutput(self.head(self.body(stem)), ((self.coarse(F.avg_pool2d(stem, 2)), 0.3),))


def build(variant: str, in_channels: int, num_classes: int, input_size: Any = None, **options: Any) -> Tiny:
    return Tiny(in_channels, num_classes, {"one": 8, "two": 12}[variant])


def register() -> None:
    """Add the network to the registry of this process."""
    if NAME not in MODELS:
        MODELS.add(NAME, __name__)


def prepare(root: Path, ignore: bool = False) -> tuple[Dataset, Plan, Splits]:
    """A dataset of bright discs (class 1) with a core (class 2), prepared under `root`, with its plan and one fold."""
    dataset = Workspace.at(root).new_dataset(701, "Discs")
    preprocessing = PreprocessingConfig(key="whole32", geometry="resize", dtype="uint8", channels=1, size=(SIDE, SIDE))
    labels: dict[str, Any] = {"background": 0, "disc": 1, "core": 2} | ({"ignore": 3} if ignore else {})
    write_description(
        dataset.description,
        DatasetSpec(channel_names={"0": "gray"}, labels=labels, numTraining=len(CASES), file_ending=".png", name="Discs"),
    )
    with array_writer(dataset.array_folder(preprocessing.key), preprocessing, "hash", 3 if ignore else None) as writer:
        for index, case in enumerate(CASES):
            random = np.random.default_rng(index)
            rows, columns = np.mgrid[:SIDE, :SIDE]
            centre = random.integers(10, 22, 2)
            distance = np.hypot(rows - centre[0], columns - centre[1])
            label = (distance < 9).astype(np.uint8) + (distance < 4)
            image = np.array([40, 130, 220], np.float32)[label] + random.normal(0, 8, label.shape)
            if ignore:
                label[:3] = 3
            writer.add(case, image.clip(0, 255).astype(np.uint8)[..., None], label.astype(np.uint8), (SIDE, SIDE))
    model_plan = ModelPlan(
        model=NAME,
        variant="one",
        input_size=(SIDE, SIDE),
        batch_size=4,
        accumulate=2,
        precision="fp32",
        pretrained="none",
        learning_rate=1e-2,
        warmup_epochs=1,
        normalisation=Normalisation(scheme="constant", mean=(100.0,), std=(60.0,)),
        preprocessing=preprocessing.key,
        parameters=0,
        flops=0,
        memory=0,
        memory_format="contiguous",
    )
    training = Training(epochs=4, loss="dice_ce", learning_rates=(1e-2,), augmentation=Augmentation(p_noise=0.5, p_blur=0.5))
    plan = Plan(
        dataset=dataset.name,
        protocol="quick",
        content_hash="hash",
        memory_budget=1 << 30,
        device="cpu",
        channels=1,
        training=training,
        preprocessing={preprocessing.key: preprocessing},
        models={NAME: model_plan},
        decisions=(),
    )
    return dataset, plan, Splits(folds=(Fold(CASES[:11], CASES[11:]),), reason="for tests")


def with_training(plan: Plan, **changes: Any) -> Plan:
    return replace(plan, training=replace(plan.training, **changes))


def with_model(plan: Plan, **changes: Any) -> Plan:
    return replace(plan, models={NAME: replace(plan.models[NAME], **changes)})


def train(root: Path, memory_format: str = "contiguous", **options: Any) -> RunRecord:
    """Train the fold of what `prepare` prepared there."""
    dataset, plan, splits = prepare(root) if not (root / "raw").exists() else reopen(root)
    plan = with_model(plan, memory_format=memory_format)
    return train_fold.train_fold(dataset, plan, splits, NAME, 0, device="cpu", **options)


def reopen(root: Path) -> tuple[Dataset, Plan, Splits]:
    """The result of `prepare` for a root that is already prepared."""
    import tempfile

    with tempfile.TemporaryDirectory() as elsewhere:
        _, plan, splits = prepare(Path(elsewhere))
    return Workspace.at(root).dataset(701), plan, splits


def at_step(number: int, action: Any) -> None:
    """Call `action` before the step of that number (from 0) of this process."""
    original = Step.__call__
    count = 0

    def counting(self: Step, *arguments: Any) -> float | None:
        nonlocal count
        count += 1
        if count == number + 1:
            action()
        return original(self, *arguments)

    Step.__call__ = counting  # type: ignore[method-assign]


def at_part(number: int, action: Any) -> None:
    """Call `action` after the forward pass of that part (from 0) of all parts of steps of this process."""
    original = Loss.__call__
    count = 0

    def counting(self: Loss, *arguments: Any) -> Tensor:
        nonlocal count
        count += 1
        if count == number + 1:
            action()
        return original(self, *arguments)

    Loss.__call__ = counting  # type: ignore[method-assign]


def in_a_process(
    root: Path,
    stop_signal: signal.Signals | None = None,
    step: int = 0,
    part: int | None = None,
    memory_format: str = "contiguous",
    restart: bool = False,
) -> tuple[int, str]:
    """Train in a process of its own, which gets a signal before that step (or within that part of a step) if asked to; its
    exit code and its output.

    Its parent is a server that has everything imported, which takes longer than training.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.preload"])
    log = root.with_name(root.name + ".log")
    process = context.Process(target=_process, args=(root, log, stop_signal, step, part, memory_format, restart))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode, log.read_text()


def _process(
    root: Path, log: Path, stop_signal: signal.Signals | None, step: int, part: int | None, memory_format: str, restart: bool
) -> None:
    # The server, and so its children, block Ctrl-C if it was started for worker processes.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    with log.open("w") as stream:
        sys.stderr = stream
        torch.set_num_threads(1)
        configure_logging()
        register()
        # A checkpoint after each epoch, however short.
        trainer._SAVE_FRACTION = 1e3
        if stop_signal is not None:
            if part is None:
                at_step(step, lambda: os.kill(os.getpid(), stop_signal))
            else:
                at_part(part, lambda: os.kill(os.getpid(), stop_signal))
        train(root, memory_format, handle_signals=True, restart=restart)
