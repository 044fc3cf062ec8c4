"""autoseg's side of a job: plan for the time, train, predict the held-out cases, all by the Python interface.

    PYTHON -m benchmarks.race.ours REQUEST.json

With several models, each is first trained for a sixth of the time without the cases of the next fold, which are then its
held-out ones; the better one is trained for what is left. The job's own held-out cases choose nothing.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from autoseg import api
from autoseg.api.training import TrainedFold
from autoseg.schema.plan import Plan
from autoseg.schema.run import choices_text
from autoseg.support.files import read_artefact
from autoseg.support.log import configure_logging
from autoseg.support.malloc import configure_glibc_malloc
from benchmarks.race.side import Phases, Request, finish, start
from benchmarks.suite.processor_time import processor_time

# Of the time, for the trial of each model.
_TRIAL = 1 / 6


def inner_folds(folds: Sequence[dict[str, list[str]]], fold: int) -> list[dict[str, list[str]]]:
    """One fold inside the training cases of a fold: those that the next fold holds out are held out."""
    inner = set(folds[(fold + 1) % len(folds)]["val"])
    train = folds[fold]["train"]
    return [{"train": [case for case in train if case not in inner], "val": [case for case in train if case in inner]}]


class _Side:
    def __init__(self, request: Request, phases: Phases) -> None:
        self._request, self._phases = request, phases
        self._options = request.options
        self._dataset = Path(request.raw).name

    def workspace(self, name: str) -> Path:
        """A root of its own with a copy of the dataset."""
        root = Path(self._request.work) / name
        shutil.copytree(self._request.raw, root / "raw" / self._dataset)
        return root

    def plan(self, root: Path, model: str, seconds: float, folds: list[dict[str, list[str]]]) -> None:
        file = root / "folds.json"
        file.write_text(json.dumps(folds), encoding="utf-8")
        settings = {"training.seed": str(self._request.seed), **self._options.get("settings", {})}
        with processor_time() if self._request.device == "cpu" else nullcontext():
            api.plan_and_preprocess(
                self._dataset, models=[model], device=self._request.device, settings=settings, splits=file,
                hours=seconds / 3600, root=root,
            )  # fmt: skip
        self._phases.end("prepare")

    def train(self, root: Path, model: str, fold: int) -> TrainedFold:
        pretrained = self._options.get("pretrained")
        (trained,) = api.train(self._dataset, model, [fold], device=self._request.device, pretrained=pretrained, root=root)
        self._phases.end("train")
        return trained

    def predict(self, root: Path, model: str) -> None:
        """Mirrored, as nnU-Net predicts. The output holds only masks, so the record goes to the workspace."""
        request = self._request
        images, masks = [request.image(case) for case in request.held_out()], root / "masks"
        api.predict(
            images, masks, self._dataset, model, [request.fold], tta=True, strict=True, names="keep", device=request.device,
            root=root,
        )  # fmt: skip
        self._phases.end("predict")
        for case in request.held_out():
            shutil.copy(masks / f"{case}.png", request.output)


def main() -> None:
    request = start()
    configure_logging()
    # As the commands do.
    configure_glibc_malloc(None)
    phases = Phases(request.device)
    side = _Side(request, phases)
    models, folds = request.options["models"], request.folds()
    seconds = request.seconds
    tried: dict[str, float] = {}
    if len(models) > 1:
        seconds -= len(models) * _TRIAL * request.seconds
        for model in models:
            root = side.workspace(f"trial_{model}")
            side.plan(root, model, _TRIAL * request.seconds, inner_folds(folds, request.fold))
            tried[model] = side.train(root, model, 0).scores.overall["per_image.dice"]
    model = max(tried, key=tried.__getitem__) if tried else models[0]
    root = side.workspace("workspace")
    side.plan(root, model, seconds, folds)
    trained = side.train(root, model, request.fold)
    side.predict(root, model)
    finish(request, phases, **_facts(trained, tried))


def _facts(trained: TrainedFold, tried: dict[str, float]) -> dict[str, Any]:
    record = trained.record
    plan = read_artefact(trained.folder / "plan.json", Plan).models[record.model]
    return {
        "model": f"{record.model} {record.variant}",
        "steps": record.steps,
        "batch": record.batch_size,
        "input": list(plan.input_size),
        "precision": record.precision,
        "rate": record.learning_rate,
        "tried": {name: round(value, 4) for name, value in tried.items()},
        "saw": choices_text(record.saw_scored_cases),
        "versions": {name: importlib.metadata.version(name) for name in ("autoseg", "torch", "timm")},
    }


if __name__ == "__main__":
    main()
