"""Sections of `benchmarks.gpu` with several processes: the loader's workers, and two processes that train on one GPU."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from autoseg.data.loader import Batch, TrainLoader
from autoseg.models import registry
from autoseg.preprocessing.array_dataset import ArrayDataset, array_writer
from autoseg.schema.plan import Augmentation, ModelPlan, PreprocessingConfig
from autoseg.training.distributed import SINGLE_PROCESS, DistributedContext
from autoseg.training.losses import Loss
from autoseg.training.optim import make_optimizer
from autoseg.training.step import Step, local_indices
from benchmarks.suite.gpu_networks import SCHEME, TRAINING, Row, model_plan, some_batch

_CASES = 24
_REPEATS = 64  # Passes over the cases in one epoch, so that starting an epoch hardly counts.


def arrays(folder: Path, side: int) -> ArrayDataset:
    """RGB photographs of smooth noise with grain, two classes."""
    config = PreprocessingConfig(key="k", geometry="resize", dtype="uint8", channels=3, size=(side, side))
    with array_writer(folder, config, "benchmark") as writer:
        for index in range(_CASES):
            random = np.random.default_rng(index)
            coarse = random.normal(128, 60, (8, 8, 3)).astype(np.float32)
            smooth = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
            image = (smooth + random.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8)
            label = (smooth[..., 0] > 150).astype(np.uint8) + (smooth[..., 1] > 190)
            writer.add(f"c{index:02d}", image, np.minimum(label, 2).astype(np.uint8), (side, side))
    return ArrayDataset.open(folder)


def loader_rates(
    side: int, batch: int, workers: list[int], seconds: float, elastic: float = 0.0
) -> Iterator[tuple[str, float | str]]:
    """Images a second of clock time, by kind and number of workers."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    plan = model_plan("unet", "16", side, batch, "fp32", torch.device("cpu"))
    training = replace(TRAINING, augmentation=Augmentation(p_elastic=elastic))
    with tempfile.TemporaryDirectory() as folder:
        store = arrays(Path(folder) / "store", side)
        for processes in (False, True):
            for count in workers:
                title = f"{side} px, {count} {'processes' if processes else 'threads'}"
                try:
                    loader = TrainLoader(
                        store, store.cases * _REPEATS, plan, training, SCHEME, 0, workers=count, processes=processes
                    )
                    yield title, _rate(loader, seconds)
                except Exception as error:
                    yield title, f"{type(error).__name__}: {error}"


def _rate(loader: TrainLoader, seconds: float) -> float:
    """Images a second after the first batches, which wait for the workers to start."""
    images, began, ready = 0, 0.0, 0
    epoch = 0
    while True:
        batches = loader.epoch(epoch)
        for batch in batches:
            ready += 1
            if ready == 2 * loader._workers:
                began = time.perf_counter()
            elif began:
                images += len(batch.images)
                if time.perf_counter() - began > seconds:
                    batches.close()  # type: ignore[attr-defined]
                    return images / (time.perf_counter() - began)
        epoch += 1


def two_processes(device: torch.device, side: int, batch: int) -> Row:
    """The same steps by one process and by two, which share a GPU: SyncBatchNorm, gradients and Dice over both shards.

    Through gloo, since NCCL refuses to share a GPU.
    """
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_train, (2, folder, str(device), side, batch), nprocs=2)
        both = torch.load(Path(folder) / "weights.pt", weights_only=True)
    plan, images = _plan(device, side, batch), some_batch(side, batch, torch.device("cpu"))
    step, start = _step(plan, device, SINGLE_PROCESS)
    losses = [step(images, 1e-2, number) for number in range(3)]
    alone = {name: tensor.float().cpu() for name, tensor in step.network.state_dict().items()}
    moved = {name: float((alone[name] - start[name]).abs().max()) for name in alone if "num_batches" not in name}
    apart = {name: float((alone[name] - both["weights"][name].float()).abs().max()) for name in moved}
    worst = max(moved, key=lambda name: apart[name] / max(moved[name], 1e-6))
    return {
        "layers": both["layers"], "losses": [losses, both["losses"]], "largest_difference": max(apart.values()),
        "largest_change": max(moved.values()), "worst": worst, "worst_to_change": apart[worst] / max(moved[worst], 1e-6),
    }  # fmt: skip


def _plan(device: torch.device, side: int, batch: int) -> ModelPlan:
    return model_plan("unet", "16", side, batch, "fp32", device)


def _step(plan: ModelPlan, device: torch.device, team: DistributedContext) -> tuple[Step, dict[str, Any]]:
    torch.manual_seed(0)
    network = registry.build(plan.model, plan.variant, in_channels=3, num_classes=SCHEME.outputs, input_size=plan.input_size)
    start = {name: tensor.clone().float() for name, tensor in network.state_dict().items()}
    network = team.sync_batch_norm(network.train().to(device), device)
    optimizer = make_optimizer(network, replace(TRAINING, optimizer="sgd"), 1e-2)
    loss = Loss(TRAINING.loss, SCHEME, team=team)
    return Step(network, optimizer, loss, plan, TRAINING.gradient_clip, device, team), start


def _train(rank: int, size: int, folder: str, device_name: str, side: int, batch: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    device = torch.device(device_name)
    team = DistributedContext(rank, size)
    plan, images = _plan(device, side, batch), some_batch(side, batch, torch.device("cpu"))
    local_samples = [sample for indices in local_indices(plan, team) for sample in indices]
    cases = tuple(images.cases[index] for index in local_samples)
    shard = Batch(images.images[local_samples], images.labels[local_samples], None, cases)
    step, _ = _step(plan, device, team)
    losses = [step(shard, 1e-2, number) for number in range(3)]
    if team.is_main:
        kinds = sorted({type(module).__name__ for module in step.network.modules() if "Norm" in type(module).__name__})
        weights = {name: tensor.cpu() for name, tensor in step.network.state_dict().items()}
        torch.save({"weights": weights, "layers": kinds, "losses": losses}, Path(folder) / "weights.pt")
    dist.barrier()
    dist.destroy_process_group()
