"""Measures optimiser steps on this machine: the real loader, augmentation, network, loss and optimiser, on random images."""

from __future__ import annotations

import logging
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from autoseg.data.loader import Batch, EncodedBatch, TrainLoader
from autoseg.models import registry
from autoseg.models.base import SegmentationNetwork
from autoseg.preprocessing.array_dataset import ArrayDataset, array_writer, preprocessing_hash
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import ModelPlan, Plan, PreprocessingConfig
from autoseg.schema.step_times import StepTimes
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact, write_artefact
from autoseg.support.parallel import available_cores
from autoseg.support.workspace import Workspace
from autoseg.training import memory_format
from autoseg.training.checkpoint import build_network
from autoseg.training.device import resolve
from autoseg.training.losses import Loss
from autoseg.training.optim import make_optimizer
from autoseg.training.step import Step, step_seed

logger = logging.getLogger(__name__)

# A step of so many images shows whether the batch is slow, which is then not measured as a whole. Fewer would mislead: two
# images use two cores worse than eight (0.32 and 0.19 s an image of EfficientNet-Lite0).
_FEW, _SLOW = 4, 0.5
# Steps are timed until they took so many seconds together, or are so many: single ones vary by a factor of 1.7.
_TIMED_SECONDS, _MOST_STEPS = 2.5, 5
# From so many steps on, the first two are left out, else the first.
_WARM_UP = 3
_CONTENT = "random"
# Waiting processes per core.
_BUSY = 1.5


class MeasuredSteps:
    """Step times of one machine and device, kept in <root>/step_times.json. A `planning.time_budget.StepTimer`.

    scheme: labels of the dataset. Raises AutosegError if this machine does not have the device.
    """

    def __init__(self, workspace: Workspace, scheme: LabelScheme, device: str) -> None:
        self._path = workspace.root / "step_times.json"
        self._scheme = scheme
        self._device = resolve(device)
        self.machine = _machine(self._device)
        self._warned = False

    def seconds(self, plan: Plan, model: ModelPlan) -> float:
        key = _key(plan, model, self._scheme)
        known = self._read()
        times = known.machines.get(self.machine, {})
        if key not in times:
            measured = round(_measure(plan, model, self._scheme, self._device), 4)
            self._warn_if_busy()
            times = {**times, key: measured}
            write_artefact(self._path, StepTimes({**known.machines, self.machine: times}))
        return times[key]

    def _warn_if_busy(self) -> None:
        if self._warned or not hasattr(os, "getloadavg") or os.getloadavg()[0] < _BUSY * available_cores():
            return
        self._warned = True
        logger.warning(
            f"other programs use this machine, so the measured steps may be slower than usual; to measure them again, delete "
            f"{self._path} and plan again"
        )

    def _read(self) -> StepTimes:
        try:
            return read_artefact(self._path, StepTimes)
        except AutosegError:
            # Missing or damaged: the times are measured again.
            return StepTimes()


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}"
    return f"{_processor()}, {available_cores()} cores, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")


def _key(plan: Plan, model: ModelPlan, scheme: LabelScheme) -> str:
    """What the time depends on."""
    size = f"{model.input_size[0]}x{model.input_size[1]}x{plan.channels}"
    batch = f"batch {model.batch_size} in {model.accumulate}"
    options = "".join(f" {name}={value}" for name, value in sorted(model.options.items()))
    how = f"{model.precision} {plan.training.optimizer} {plan.training.augmentation.chain} {plan.training.loss}"
    compiled = " compiled" if plan.training.compile else ""
    compiled += " frozen encoder" if model.encoder_rate == 0 else ""
    compiled += " cached" if model.cached_views else ""
    return f"{model.model} {model.variant} {size} {batch} {how} {scheme.outputs} outputs{options}{compiled}"


def _measure(plan: Plan, model: ModelPlan, scheme: LabelScheme, device: torch.device) -> float:
    """Seconds of a step. A slow batch is measured on a few images: the time grows with them."""
    config = plan.preprocessing.get(model.preprocessing) or next(iter(plan.preprocessing.values()))
    if config.geometry == "resize":
        config = replace(config, size=model.input_size)
    chosen = model.memory_format
    if chosen == "auto":
        chosen, _ = memory_format.choose(registry.spec(model.model), device)
    model = replace(model, memory_format=chosen)
    few = replace(model, batch_size=min(_FEW, model.batch_size), accumulate=1)
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        store = _random_images(Path(folder) / "arrays", config, model, scheme)
        runner = _Steps(plan, store, scheme, device, config)
        is_whole = few.batch_size == model.batch_size
        seconds = runner.run(few)
        if seconds > _SLOW or is_whole:
            return seconds * model.batch_size / few.batch_size
        return runner.run(model)


class _Steps:
    def __init__(
        self, plan: Plan, store: ArrayDataset, scheme: LabelScheme, device: torch.device, config: PreprocessingConfig
    ) -> None:
        self._plan, self._store, self._scheme, self._device, self._config = plan, store, scheme, device, config

    def run(self, model: ModelPlan) -> float:
        """Median seconds of steps, without the first for warm-up."""
        training = self._plan.training
        network = build_network(model, self._config, self._scheme, "plan.json").to(self._device)
        if model.encoder_rate == 0:
            network.freeze_encoder()
        network.train()
        optimizer = make_optimizer(network, training, model.learning_rate, model)
        loss = Loss(training.loss, self._scheme, training.cldice)
        step = Step(
            network, optimizer, loss=loss, model_plan=model, clip=training.gradient_clip, device=self._device,
            compiled=training.compile,
        )  # fmt: skip
        loader = TrainLoader(
            self._store, self._store.cases, model, training, self._scheme, training.seed, pin=self._device.type == "cuda"
        )
        times: list[float] = []
        batches = loader.epoch(0, 0)
        begin = time.perf_counter()
        maps: tuple[torch.Tensor, ...] | None = None
        try:
            for number, batch in enumerate(batches):
                if model.cached_views:
                    # Encoded once before the training; the time of that is no part of a step.
                    maps = maps or self._maps(network, batch)
                    batch = EncodedBatch(batch.images, batch.labels, batch.statistics, batch.cases, maps)
                    begin = time.perf_counter()
                step(batch, 0.0, step_seed(training.seed, 0, number, 0))
                if self._device.type == "cuda":
                    torch.cuda.synchronize(self._device)
                now = time.perf_counter()
                times.append(now - begin)
                begin = now
                if len(times) > _MOST_STEPS or sum(times[1:]) > _TIMED_SECONDS:
                    break
        finally:
            # Closing the generator ends its threads.
            batches.close()  # type: ignore[attr-defined]
        # Memory is still being claimed in the second step.
        return statistics.median(times[2:] if len(times) > _WARM_UP else times[1:])


    def _maps(self, network: SegmentationNetwork, batch: Batch) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            return tuple(network.encoder_maps(batch.images.to(self._device).float()))


def _random_images(folder: Path, config: PreprocessingConfig, model: ModelPlan, scheme: LabelScheme) -> ArrayDataset:
    """Arrays as large as the network's input, or as an image with room for patches."""
    random = np.random.default_rng(0)
    size = model.input_size if config.geometry == "resize" else (model.input_size[0] + 32, model.input_size[1] + 32)
    dtype = np.dtype(config.dtype)
    highest = 255 if dtype == np.uint8 else 1000
    values = [value for value in scheme.values if value != scheme.ignore]
    with array_writer(folder, config, _CONTENT, scheme.ignore) as writer:
        for index in range(model.batch_size * (_MOST_STEPS + 1)):
            image = random.integers(0, highest, (*size, config.channels)).astype(dtype)
            label = random.choice(values, (size[0] // 32 + 1, size[1] // 32 + 1)).astype(np.uint8)
            label = np.ascontiguousarray(label.repeat(32, 0).repeat(32, 1)[: size[0], : size[1]])
            writer.add(f"case_{index:03d}", image, label, size)
    return ArrayDataset.open(folder, preprocessing_hash(config, _CONTENT))
