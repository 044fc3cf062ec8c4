"""nnU-Net v2's side of a job, run by the Python that has it: its planner, its trainer with a schedule that fits the time, its
prediction (mirrored, half overlapping tiles, the last weights).

    PYTHON -m benchmarks.race.theirs REQUEST.json

What differs from its defaults, all in its favour: the number of epochs and iterations is fitted to the time, and so is a batch
of which not even 200 would fit (ResEnc M plans batches of 100 small images); one batch an epoch is validated instead of 50 (its
last weights do not depend on them); no checkpoint and no plot in between; on a processor images are augmented in the process
that trains instead of in twelve.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import random
import shutil
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from nnunetv2.experiment_planning import plan_and_preprocess_api as planning
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from benchmarks.race.side import Phases, Request, finish, fit, fit_again, fit_batch, seconds_used, start

CONFIGURATION = "2d"
# Images of a timed step, and steps.
_TIMED_IMAGES, _TIMED_STEPS = 4, 3


class TimedTrainer(nnUNetTrainer):  # type: ignore[misc]
    """Trains for `seconds`, counted by `seconds_used` from `begun`."""

    seconds: float
    begun: float
    steps = 0

    def left(self) -> float:
        return self.seconds - (seconds_used(self.device.type) - self.begun)

    def measure_step(self) -> float:
        """Median seconds of steps after one for warm-up. With learning rate 0 the weights stay; the momentum is cleared."""
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        self.network.train()
        times = []
        for _ in range(1 + _TIMED_STEPS):
            begun = seconds_used(self.device.type)
            self.train_step(next(self.dataloader_train))
            times.append(seconds_used(self.device.type) - begun)
        self.optimizer.state.clear()
        return median(times[1:])

    def start_timed(self) -> float:
        """Start with a small batch, measure it, and go on with the planned one or what fits. Gives seconds a step and image."""
        planned = self.configuration_manager.batch_size
        self.initialize()
        self.batch_size = timed = min(planned, _TIMED_IMAGES)
        self.on_train_start()
        per_image = self.measure_step() / timed
        self.batch_size = fit_batch(self.left(), per_image, planned)
        if self.batch_size != timed:
            for loader in (self.dataloader_train, self.dataloader_val):
                # Those of a GPU have processes.
                getattr(loader, "_finish", lambda: None)()
            self.dataloader_train, self.dataloader_val = self.get_dataloaders()
        return per_image

    def run_training(self) -> None:
        """As its own loop. The number of epochs follows the time that they take."""
        self.disable_checkpointing = True
        self.logger.plot_progress_png = lambda folder: None
        self.num_val_iterations_per_epoch = 1
        per_image = self.start_timed()
        self.num_epochs, self.num_iterations_per_epoch = fit(self.left(), per_image * self.batch_size)
        used = seconds_used(self.device.type)
        while self.current_epoch < self.num_epochs:
            self.lr_scheduler.max_steps = self.num_epochs
            self.on_epoch_start()
            self.on_train_epoch_start()
            batches = range(self.num_iterations_per_epoch)
            self.on_train_epoch_end([self.train_step(next(self.dataloader_train)) for _ in batches])
            self.steps += self.num_iterations_per_epoch
            with torch.no_grad():
                self.on_validation_epoch_start()
                validated = range(self.num_val_iterations_per_epoch)
                self.on_validation_epoch_end([self.validation_step(next(self.dataloader_val)) for _ in validated])
            self.on_epoch_end()
            self.num_epochs = fit_again(self.current_epoch, seconds_used(self.device.type) - used, self.left())
        self.disable_checkpointing = False
        self.on_train_end()


def prepare(request: Request) -> dict[str, Any]:
    """Fingerprint, plan and preprocessing, with the race's folds. Gives the plan."""
    name = Path(request.raw).name
    number = int(name[len("Dataset") :].partition("_")[0])
    planning.extract_fingerprints([number], num_processes=1, show_progress_bar=False)
    identifier = planning.plan_experiments([number], request.options["planner"])
    planning.preprocess([number], identifier, [CONFIGURATION], [1], show_progress_bar=False)
    folder = Path(os.environ["nnUNet_preprocessed"]) / name  # noqa: SIM112 (its own name)
    (folder / "splits_final.json").write_text(json.dumps(request.folds()), encoding="utf-8")
    return json.loads((folder / f"{identifier}.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def make_trainer(request: Request, plans: dict[str, Any]) -> TimedTrainer:
    if request.device == "cpu":
        # No process besides this one augments images. Its planner does not accept 0.
        os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(request.seed)
    description = json.loads((Path(request.raw) / "dataset.json").read_text(encoding="utf-8"))
    plans = {**plans, "continue_training": False}
    trainer = TimedTrainer(plans, CONFIGURATION, request.fold, description, torch.device(request.device))
    trainer.seconds = request.seconds
    return trainer


def predict(request: Request, trainer: TimedTrainer) -> None:
    trainer.set_deep_supervision_enabled(False)
    # On a GPU it is compiled.
    network = getattr(trainer.network, "_orig_mod", trainer.network).eval()
    device = torch.device(request.device)
    predictor = nnUNetPredictor(use_mirroring=True, device=device, allow_tqdm=False)
    predictor.manual_initialization(
        network, trainer.plans_manager, trainer.configuration_manager, [network.state_dict()], trainer.dataset_json,
        type(trainer).__name__, trainer.inference_allowed_mirroring_axes,
    )  # fmt: skip
    cases, masks = request.held_out(), Path(request.work) / "masks"
    masks.mkdir()
    images = [[str(request.image(case))] for case in cases]
    predictor.predict_from_files_sequential(images, [str(masks / case) for case in cases])
    # It writes other files next to the masks.
    for case in cases:
        shutil.copy(masks / f"{case}.png", request.output)


def main() -> None:
    request = start()
    phases = Phases(request.device)
    plans = prepare(request)
    phases.end("prepare")
    begun = seconds_used(request.device)
    trainer = make_trainer(request, plans)
    trainer.begun = begun
    trainer.run_training()
    phases.end("train")
    predict(request, trainer)
    phases.end("predict")
    configuration = plans["configurations"][CONFIGURATION]
    finish(
        request, phases, model=configuration["architecture"]["network_class_name"].rpartition(".")[2], steps=trainer.steps,
        batch=trainer.batch_size, planned_batch=configuration["batch_size"], input=list(configuration["patch_size"]),
        epochs=trainer.num_epochs, precision="fp16" if request.device == "cuda" else "fp32",
        saw="no choice of the training saw the scored cases",
        versions={name: importlib.metadata.version(name) for name in ("nnunetv2", "torch")},
    )  # fmt: skip


if __name__ == "__main__":
    main()
