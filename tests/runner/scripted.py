"""An empty dataset with plan and splits, and a fake engine whose outcomes a test scripts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from autoseg.runner.engine import Outcome
from autoseg.runner.jobs import JobOptions
from autoseg.schema.plan import Fold, ModelPlan, Normalisation, Plan, PreprocessingConfig, Splits, Training
from autoseg.schema.run import RunRecord
from autoseg.schema.runner import Job
from autoseg.support.files import write_artefact
from autoseg.support.workspace import Dataset, Workspace

FOLDS = 3
RATES = (1e-3, 1e-4)


def write_planned_dataset(root: Path, models: Sequence[str] = ("unet", "segformer"), search_epochs: int = 0) -> Dataset:
    dataset = Workspace.at(root).new_dataset(501, "Paper")
    dataset.raw.mkdir(parents=True)
    plan = ModelPlan(
        model="unet",
        variant="16",
        input_size=(64, 64),
        batch_size=4,
        accumulate=1,
        precision="fp32",
        pretrained="none",
        learning_rate=1e-3,
        warmup_epochs=0,
        normalisation=Normalisation(scheme="image"),
        preprocessing="resize_64x64",
        parameters=0,
        flops=0,
        memory=0,
    )
    training = Training(epochs=10, loss="ce", learning_rates=RATES, search_epochs=search_epochs)
    preprocessing = PreprocessingConfig(key="resize_64x64", geometry="resize", dtype="uint8", channels=3, size=(64, 64))
    write_artefact(
        dataset.plan,
        Plan(
            dataset=dataset.name, protocol="quick", content_hash="hash", memory_budget=1 << 30, device="cpu", channels=3,
            training=training, preprocessing={preprocessing.key: preprocessing},
            models={model: replace(plan, model=model) for model in models}, decisions=(),
        ),
    )  # fmt: skip
    cases = tuple(f"case{number}" for number in range(FOLDS))
    folds = tuple(Fold(tuple(c for c in cases if c != held_out), (held_out,)) for held_out in cases)
    write_artefact(dataset.splits, Splits(folds=folds, reason="for tests"))
    return dataset


def finish(root: Path, job: Job, status: str = "finished", epochs: int = 10) -> None:
    """Write the files of a finished run."""
    dataset = Dataset(root, job.dataset)
    folder = dataset.trial(job.trial) / f"fold_{job.fold}" if job.trial else dataset.fold(job.model, job.fold)
    record = RunRecord(
        dataset=job.dataset,
        model=job.model,
        variant="16",
        fold=job.fold,
        protocol="quick",
        identity="id",
        seed=0,
        device="cpu",
        precision="fp32",
        status=status,
        epochs_planned=10,
        epochs_done=epochs,
        best_epoch=3,
        class_mean_dice=0.7,
        micro_dice=0.75,
    )
    write_artefact(folder / "run.json", record)
    inputs = (folder.parent / "plan.json", folder.parent / "splits.json") if job.trial else (dataset.plan, dataset.splits)
    for path in inputs:
        (folder / path.name).write_bytes(path.read_bytes())
    if status == "finished":
        (folder / "validation").mkdir(exist_ok=True)
        (folder / "validation" / "scores.json").write_text("{}")


@dataclass
class ScriptedHandle:
    """A fake process that ends after `polls` polls with the outcome of `script`."""

    job: Job
    script: Callable[[], Outcome]
    polls: int
    where: str = "here"
    stopped: bool = False

    def poll(self) -> Outcome | None:
        self.polls -= 1
        return None if self.polls > 0 and not self.stopped else self.script()

    def stop(self) -> None:
        self.stopped = True


@dataclass
class ScriptedEngine:
    """A fake engine. script: (job, attempt from 1) -> outcome. running_at_start: the running jobs at each start."""

    root: Path
    script: Callable[[Job, int], Outcome]
    count: int = 1
    polls: int = 1
    name: str = "scripted"
    started: list[Job] = field(default_factory=list)
    running_at_start: list[set[Job]] = field(default_factory=list)
    handles: list[ScriptedHandle] = field(default_factory=list)

    def slots(self) -> int:
        return self.count

    def start(self, command: Sequence[str], log: Path) -> ScriptedHandle:
        first = 3
        trial = command[command.index("--trial") + 1] if "--trial" in command else ""
        job = Job(command[first], command[first + 1], int(command[first + 2]), trial)
        self.started.append(job)
        attempt = self.started.count(job)
        self.running_at_start.append({handle.job for handle in self.handles if handle.polls > 0} | {job})
        self.handles.append(ScriptedHandle(job, lambda: self.script(job, attempt), self.polls))
        return self.handles[-1]

    def close(self) -> None:
        for handle in self.handles:
            handle.stop()


def all_succeed(root: Path) -> Callable[[Job, int], Outcome]:
    """Every attempt succeeds."""

    def script(job: Job, attempt: int) -> Outcome:
        finish(root, job)
        return Outcome(0, "there")

    return script


def job_options(root: Path) -> JobOptions:
    return JobOptions(root=root)


def read_table(root: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((root / "results" / "grid.json").read_text())
    return content
