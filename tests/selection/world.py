"""A dataset of few small images, networks of few weights, and jobs whose results are told beforehand."""

from __future__ import annotations

import shutil
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoseg import api
from autoseg.models.base import ModelOutput, ModelSpec, SegmentationNetwork, Variant
from autoseg.runner.jobs import JobOptions, folder_of, is_done
from autoseg.schema.plan import Plan, Splits
from autoseg.schema.run import RunRecord
from autoseg.schema.runner import GridTable, Job, JobRow
from autoseg.schema.scores import CaseScore, ClassScore, Scores
from autoseg.selection import ladder, trials
from autoseg.support.extensions import MODELS
from autoseg.support.files import read_artefact, write_artefact
from autoseg.support.workspace import Dataset, Workspace
from tests import generated

# Seconds of a step of eight images, as if measured. The last one cannot take two steps in the first rung.
STEP = {"fast_net": 0.5, "good_net": 1.0, "slow_net": 400.0}
# Dice that a training of each network comes to, and how much a step adds at first.
SKILL = {"fast_net": 0.70, "good_net": 0.85, "slow_net": 0.95}
CASES, FOLDS = 30, 3


def step_seconds(name: str, batch: int) -> float:
    return STEP[name] * batch / 8


class Level(SegmentationNetwork):
    """Dark pixels are foreground: how dark is learnt."""

    divisor = 4

    def __init__(self, in_channels: int, num_classes: int, level: float) -> None:
        super().__init__()
        self.mix = nn.Conv2d(in_channels, num_classes, 1)
        with torch.no_grad():
            self.mix.weight.copy_(torch.linspace(2, -2, num_classes).view(-1, 1, 1, 1).expand_as(self.mix.weight))
            self.mix.bias.copy_(torch.linspace(level, -level, num_classes))

    def segment(self, x: Tensor) -> ModelOutput:
        return ModelOutput(self.mix(x))


def network(name: str) -> ModuleType:
    """A module as the registry needs it."""
    module = ModuleType(f"tests.selection.{name}")
    module.SPEC = ModelSpec(  # type: ignore[attr-defined]
        name=name, title=name, family="generalist" if name == "good_net" else "specialist", citation="none",
        variants=(Variant("small", 0), Variant("large", 0)), default_variant="large", divisor=4,
    )  # fmt: skip

    def build(variant: str, in_channels: int, num_classes: int, input_size: Any = None, **options: Any) -> Level:
        return Level(in_channels, num_classes, {"good_net": 3.0, "fast_net": -30.0, "slow_net": 0.0}[name])

    module.build = build  # type: ignore[attr-defined]
    return module


def register() -> None:
    """Add the networks to the registry of this process."""
    for name in STEP:
        module = network(name)
        sys.modules[module.__name__] = module
        if name not in MODELS:
            MODELS.add(name, module.__name__)


def make(folder: Path, kind: str = "lesion", cases: int = CASES) -> Path:
    """A root with a converted dataset that is split into three folds."""
    images, masks = generated.write_folders(folder / f"photos_{kind}", kind, cases)
    what = generated.SPECIFICATION[kind]
    root = folder / "root"
    api.convert_folders(images, masks, kind.title(), labels=what.labels, groups=what.groups, root=root)
    settings = {"training.folds": FOLDS}
    api.plan_and_preprocess(kind.title(), models="fast_net", settings=settings, preprocess=False, device="cpu", root=root)
    return root


def copy(root: Path, folder: Path) -> Path:
    shutil.copytree(root, folder / "root")
    return folder / "root"


def told_dice(job: Job, plan: Plan, case: str) -> float:
    """Grows with the steps to the network's skill; each case has its own difficulty, the same for all networks."""
    difficulty = zlib.crc32(case.encode()) % 100 / 1000
    own = zlib.crc32(f"{case}{job.trial.split('/level')[0]}".encode()) % 100 / 5000
    learnt = 1 - np.exp(-plan.training.epochs / 0.8)
    rate = plan.models[job.model].learning_rate
    return float(SKILL[job.model] * learnt - difficulty - own - (0.02 if rate != 5e-4 else 0.0))


class Jobs:
    """Stands for `run_jobs`, and writes told results. ran: the jobs that were not done before. stop_after: Ctrl-C before the
    job of this number. fail: jobs that fail. dice: (job, plan, case) -> Dice."""

    def __init__(self) -> None:
        self.ran: list[Job] = []
        self.fail: Callable[[Job], bool] = lambda job: False
        self.stop_after: int | None = None
        self.dice = told_dice

    def __call__(self, jobs: Sequence[Job], job_options: JobOptions, engine: Any, **options: Any) -> GridTable:
        rows = []
        for job in jobs:
            if is_done(job_options.root, job):
                rows.append(JobRow(job=job, state="done"))
                continue
            if self.stop_after is not None and len(self.ran) >= self.stop_after:
                options["watch"](_table(rows))
                raise KeyboardInterrupt
            self.ran.append(job)
            if self.fail(job):
                rows.append(JobRow(job=job, state="failed", message="it was killed", attempts=3, seconds=1.0))
                continue
            seconds = self._finish(job_options.root, job)
            rows.append(JobRow(job=job, state="done", attempts=1, seconds=seconds + 2.0))
        return _table(rows)

    @property
    def trials(self) -> list[str]:
        return [f"{job.trial}/{job.fold}" for job in self.ran]

    def _finish(self, root: Path, job: Job) -> float:
        """Write what a training leaves; its seconds."""
        folder = folder_of(root, job)
        plan, splits = read_artefact(folder.parent / "plan.json", Plan), read_artefact(folder.parent / "splits.json", Splits)
        fold, model = splits.folds[job.fold], plan.models[job.model]
        steps = plan.training.epochs * -(-len(fold.train) // model.batch_size)
        seconds = steps * step_seconds(job.model, model.batch_size)
        record = RunRecord(
            dataset=job.dataset, model=job.model, variant=model.variant, fold=job.fold, protocol="auto",
            identity=f"{job.trial} {job.fold}", seed=plan.training.seed, device="cpu", precision="fp32", status="finished",
            epochs_planned=plan.training.epochs, epochs_done=plan.training.epochs, seconds=seconds, steps=steps,
            batch_size=model.batch_size, images_per_second=8 / STEP[job.model], selection="last",
            saw_scored_cases=(),
        )  # fmt: skip
        write_artefact(folder / "run.json", record)
        write_artefact(folder / "plan.json", plan)
        write_artefact(folder / "splits.json", splits)
        scores = scores_of({case: self.dice(job, plan, case) for case in fold.validation})
        write_artefact(folder / "validation" / "scores.json", scores)
        return seconds


def _table(rows: Sequence[JobRow]) -> GridTable:
    return GridTable(engine="here", host="here", pid=1, updated="", rows=tuple(rows))


def scores_of(dice: dict[str, float], name: str = "lesion") -> Scores:
    """Scores of one class, whose metrics follow from the Dice."""
    cases = tuple(
        CaseScore(case, {name: ClassScore(
            tp=int(1000 * value), fp=1, fn=1, dice=value, iou=value / (2 - value), precision=value, recall=value,
            hd95=10 * (1 - value), nsd=value,
        )})
        for case, value in dice.items()
    )  # fmt: skip
    return Scores(cases=cases, classes={}, overall={}, undefined=0, unit="px", rule="told")


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """Steps have the seconds of STEP, a job needs no time besides them, two steps suffice, five candidates enter."""
    register()
    runs = Jobs()
    monkeypatch.setattr("autoseg.runner.scheduler.run_jobs", runs)
    monkeypatch.setattr("autoseg.api.selection._preprocess", lambda dataset, jobs: None)
    known_times(monkeypatch)
    return runs


def known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "autoseg.training.step_time._measure", lambda plan, model, scheme, device: step_seconds(model.model, model.batch_size)
    )
    monkeypatch.setattr(trials, "FEWEST_STEPS", 2)
    monkeypatch.setattr(ladder, "START", 0.0)
    monkeypatch.setattr(ladder, "_CANDIDATES", 5)


def dataset(root: Path, which: str = "Lesion") -> Dataset:
    return Workspace.at(root).dataset(which)
