"""Sections of `benchmarks.gpu` in its own process: device, steps of all networks, rules, memory that ends, compiling."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

from autoseg.data.loader import Batch
from autoseg.inference.engine import Engine
from autoseg.inference.precision import tensor_cores
from autoseg.models import registry
from autoseg.planning.sizing import ModelRequest, fit_part, flops_of
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import ModelPlan, Normalisation, PreprocessingConfig, Training
from autoseg.support.errors import AutosegError
from autoseg.training.deterministic import deterministic_algorithms
from autoseg.training.losses import Loss
from autoseg.training.memory_format import choose
from autoseg.training.optim import make_optimizer
from autoseg.training.step import Step, step_seed

Row = dict[str, Any]
SCHEME = LabelScheme(names=("background", "a", "b"), members=((0,), (1,), (2,)))
PLAIN = Normalisation(scheme="constant", mean=(127.5,) * 3, std=(64.0,) * 3)
TRAINING = Training(epochs=1, loss="dice_ce", learning_rates=(1e-4,))
BUDGET = 1 << 50


def request(model: str, batch: int, precision: str, device: str) -> ModelRequest:
    return ModelRequest(
        spec=registry.spec(model), channels=3, outputs=SCHEME.outputs, precision=precision, device=device, optimizer="adamw",
        budget=BUDGET, batch=batch,
    )  # fmt: skip


def planned(model: str, side: int, batch: int, device: str) -> Row:
    """What the planner measures for a training step on `device`, without it: variant, input size, bytes, operations."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    spec = registry.spec(model)
    inside = spec.size_inside(spec.default_variant) or side
    precision = "bf16" if spec.mixed_precision else "fp32"
    need = request(model, batch, precision, device)
    fit = fit_part(need, spec.default_variant, (inside, inside), accumulate=1)
    flops = flops_of(need, spec.default_variant, (inside, inside))
    return {
        "variant": spec.default_variant, "side": inside, "precision": precision, "planned": fit.memory, "flops": flops,
        "planning_seconds": time.perf_counter() - began,
    }  # fmt: skip


class Plans:
    """`planned` of all models, in processes of their own while the device works."""

    def __init__(self, models: Sequence[str], side: int, batch: int, device: str, workers: int) -> None:
        self._pool = ProcessPoolExecutor(workers, get_context("spawn"))
        self._futures: dict[str, Future[Row]] = {
            model: self._pool.submit(planned, model, side, batch, device) for model in models
        }

    def __getitem__(self, model: str) -> Row:
        return self._futures[model].result()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def model_plan(
    model: str, variant: str, side: int, batch: int, precision: str, device: torch.device, **fields: Any
) -> ModelPlan:
    form, _ = choose(registry.spec(model), device)
    content: dict[str, Any] = {"memory_format": form, "accumulate": 1, "memory": 0, **fields}
    return ModelPlan(
        model=model, variant=variant, input_size=(side, side), batch_size=batch, precision=precision, pretrained="none",
        learning_rate=1e-4, warmup_epochs=0, normalisation=PLAIN, preprocessing="k", parameters=0, flops=0, **content,
    )  # type: ignore[arg-type]  # fmt: skip


def some_batch(side: int, batch: int, device: torch.device) -> Batch:
    """Blocks that differ in brightness, so that there is something to learn."""
    random = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 3, (batch, side // 16, side // 16), dtype=torch.uint8, generator=random)
    labels = blocks.repeat_interleave(16, 1).repeat_interleave(16, 2).contiguous()
    noise = torch.randint(0, 60, (batch, 3, side, side), dtype=torch.uint8, generator=random)
    result = Batch((labels[:, None] * 80 + noise).contiguous(), labels, None, ("case",) * batch)
    return result.pin_memory() if device.type == "cuda" else result


def step_of(plan: ModelPlan, device: torch.device, compiled: bool = False) -> Step:
    torch.manual_seed(0)
    network = registry.build(plan.model, plan.variant, in_channels=3, num_classes=SCHEME.outputs, input_size=plan.input_size)
    optimizer = make_optimizer(network.train().to(device), TRAINING, plan.learning_rate)
    return Step(network, optimizer, Loss(TRAINING.loss, SCHEME), plan, TRAINING.gradient_clip, device, compiled=compiled)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def allocated_peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def rate(work: Callable[[], object], images: int, device: torch.device, seconds: float) -> float:
    """Images a second of a kind of work that was warmed up."""
    synchronize(device)
    began, count = time.perf_counter(), 0
    while count < 3 or time.perf_counter() - began < seconds:
        work()
        count += 1
    synchronize(device)
    return images * count / (time.perf_counter() - began)


def run_steps(step: Step, batch: Batch, count: int, first: int = 0) -> list[float | None]:
    with tensor_cores(step._device):
        return [step(batch, 1e-4, step_seed(0, 0, first + number)) for number in range(count)]


def device_facts(device: torch.device, smoke: bool) -> Row:
    """What the device is, and the two ceilings: products of matrices and copies."""
    facts: Row = {"torch": torch.__version__, "device": str(device)}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "name": properties.name, "capability": f"{properties.major}.{properties.minor}", "cuda": torch.version.cuda,
            "memory": properties.total_memory, "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
            "cudnn": torch.backends.cudnn.version(), "devices": torch.cuda.device_count(),
        }  # fmt: skip
    side = 512 if smoke else 8192
    kinds = {"bf16": (torch.bfloat16, "highest"), "fp32": (torch.float32, "highest"), "tf32": (torch.float32, "high")}
    for name, (dtype, setting) in kinds.items():
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(setting)
        one = torch.randn(side, side, device=device, dtype=dtype)
        _ = one @ one
        facts[f"matmul_{name}_tflops"] = rate(lambda one=one: one @ one, 1, device, 0.3) * 2 * side**3 / 1e12  # type: ignore[misc]
        torch.set_float32_matmul_precision(before)
    pageable = torch.zeros((4 if smoke else 256) << 20, dtype=torch.uint8)
    for name, source in {"pageable": pageable, "pinned": pageable.pin_memory() if device.type == "cuda" else pageable}.items():
        copies = rate(lambda source=source: source.to(device, non_blocking=True), 1, device, 0.3)  # type: ignore[misc]
        facts[f"copy_{name}_gb_s"] = copies * pageable.numel() / 1e9
    return facts


def one_model(model: str, plan: Row, batch: int, device: torch.device, seconds: float) -> Row:
    """Steps of one network: peak memory against the planner's, images a second, losses."""
    free(device)
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    measured_plan = model_plan(model, plan["variant"], plan["side"], batch, plan["precision"], device)
    step, images = step_of(measured_plan, device), some_batch(plan["side"], batch, device)
    losses = run_steps(step, images, 3)
    peak = allocated_peak(device) - before
    speed = rate(lambda: run_steps(step, images, 1, 9), batch, device, seconds)
    reserved = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0
    return {
        **plan, "batch": batch, "peak": peak, "reserved": reserved, "peak_to_planned": peak / plan["planned"],
        "images_per_second": speed, "tflops": 3 * plan["flops"] * speed / 1e12, "losses": losses,
        "format": measured_plan.memory_format, "accumulate": step.accumulate,
    }  # fmt: skip


def rules(models: Sequence[str], side: int, batch: int, device: torch.device, seconds: float) -> Iterator[tuple[str, Row]]:
    """Images a second of each precision and memory format."""
    for model in models:
        variant = registry.spec(model).default_variant
        row: Row = {}
        for name, precision, form, matmul in (
            ("bf16 channels_last", "bf16", "channels_last", "high"), ("bf16 contiguous", "bf16", "contiguous", "high"),
            ("fp16 channels_last", "fp16", "channels_last", "high"), ("tf32 channels_last", "fp32", "channels_last", "high"),
            ("tf32 contiguous", "fp32", "contiguous", "high"), ("fp32 channels_last", "fp32", "channels_last", "highest"),
        ):  # fmt: skip
            free(device)
            step = step_of(model_plan(model, variant, side, batch, precision, device, memory_format=form), device)
            images = some_batch(side, batch, device)
            convolutions = torch.backends.cudnn.allow_tf32
            torch.backends.cudnn.allow_tf32 = matmul == "high"
            torch.set_float32_matmul_precision(matmul)
            try:
                work = lambda step=step, images=images: step(images, 1e-4, 1)  # noqa: E731
                work(), work()
                row[name] = rate(work, batch, device, seconds)
            finally:
                torch.backends.cudnn.allow_tf32 = convolutions
                torch.set_float32_matmul_precision("highest")
        yield model, row


def repeats(model: str, side: int, batch: int, device: torch.device) -> Row:
    """Whether three steps from the same start give the same weights twice, by default and with deterministic algorithms."""
    spec = registry.spec(model)
    side = spec.size_inside(spec.default_variant) or side
    plan = model_plan(model, spec.default_variant, side, batch, "bf16" if spec.mixed_precision else "fp32", device)
    images, row = some_batch(side, batch, device), {}
    for name, deterministic in (("default", False), ("deterministic", True)):
        try:
            ends = []
            with deterministic_algorithms(deterministic):
                for _ in range(2):
                    free(device)
                    step = step_of(plan, device)
                    run_steps(step, images, 3)
                    ends.append({key: tensor.cpu() for key, tensor in step.network.state_dict().items()})
            row[name] = "equal" if all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0]) else "differs"
        except AutosegError as error:
            row[name] = error.problem[:160]
    return row


@contextmanager
def memory_limit(size: int, device: torch.device) -> Iterator[None]:
    """At most so many bytes of the device for this process."""
    torch.cuda.set_per_process_memory_fraction(size / torch.cuda.get_device_properties(device).total_memory, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def training_out_of_memory(side: int, batch: int, device: torch.device) -> Row:
    """The same steps with all the memory they want, and with 60 % of it."""
    plan = model_plan("unet", registry.spec("unet").default_variant, side, batch, "bf16", device)
    images = some_batch(side, batch, device)
    free(device)
    roomy = run_steps(step_of(plan, device), images, 3)
    needed = torch.cuda.max_memory_reserved(device)
    free(device)
    with memory_limit(int(0.6 * needed), device):
        step = step_of(plan, device)
        cramped = run_steps(step, images, 3)
    held = torch.cuda.max_memory_reserved(device)
    limit, losses = int(0.6 * needed), [roomy, cramped]
    return {"needed": needed, "limit": limit, "held": held, "accumulate": step.accumulate, "losses": losses}


def prediction_engine(plan: ModelPlan, device: torch.device, mirror: tuple[int, ...]) -> Engine:
    torch.manual_seed(0)
    network = registry.build(plan.model, plan.variant, in_channels=3, num_classes=SCHEME.outputs, input_size=plan.input_size)
    preparation = PreprocessingConfig(key="k", geometry="patch", dtype="uint8", channels=3)
    return Engine(network.to(device), plan, preparation, SCHEME, device, mirror)


def prediction_out_of_memory(side: int, batch: int, device: torch.device) -> Row:
    """Tiles of one image, mirrored, with all the memory they want, and with half of it."""
    plan = model_plan("unet", registry.spec("unet").default_variant, side, batch, "bf16", device)
    image = np.random.default_rng(0).integers(0, 255, (4 * side, 4 * side, 3), dtype=np.uint8)
    maps, sizes, peaks = [], [], []
    for part in (1.0, 0.5):
        free(device)
        engine = prediction_engine(plan, device, (0, 1))
        if part == 1.0:
            maps.append(engine.probabilities([image])[0])
        else:
            with memory_limit(int(part * peaks[0]), device):
                maps.append(engine.probabilities([image])[0])
        sizes.append(engine.batch_size)
        peaks.append(torch.cuda.max_memory_reserved(device))
    difference = float((maps[0] - maps[1]).abs().max())
    return {"peaks": peaks, "batch_sizes": sizes, "largest_difference": difference}


def prediction_rate(model: str, side: int, batch: int, device: torch.device, seconds: float) -> Row:
    """Tiles a second of the engine, from stored values to probabilities on the CPU, against the bare forward passes."""
    spec = registry.spec(model)
    plan = model_plan(model, spec.default_variant, side, batch, "bf16" if spec.mixed_precision else "fp32", device)
    image = np.random.default_rng(0).integers(0, 255, (4 * side, 4 * side, 3), dtype=np.uint8)
    row: Row = {}
    for name, mirror in (("plain", ()), ("mirrored", (0, 1))):
        engine = prediction_engine(plan, device, mirror)
        tiles = engine.num_batch_items(image)
        engine.probabilities([image])
        row[f"{name}_tiles_per_second"] = rate(lambda engine=engine: engine.probabilities([image]), tiles, device, seconds)  # type: ignore[misc]
        if not mirror:
            form = torch.channels_last if device.type == "cuda" else torch.contiguous_format
            inputs = torch.randn(batch, 3, side, side, device=device).contiguous(memory_format=form)
            network = copy.deepcopy(engine.network).eval()

            def bare(network: torch.nn.Module = network, inputs: torch.Tensor = inputs) -> None:
                enabled = plan.precision == "bf16"
                with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=enabled), tensor_cores(device):
                    network(inputs)

            bare()
            row["bare_tiles_per_second"] = rate(bare, batch, device, seconds)
    return row


def compiled_rate(model: str, side: int, batch: int, device: torch.device, seconds: float) -> Row:
    """Images a second with and without torch.compile, and the seconds of its first two steps."""
    spec = registry.spec(model)
    plan = model_plan(model, spec.default_variant, side, batch, "bf16" if spec.mixed_precision else "fp32", device)
    images, row = some_batch(side, batch, device), {}
    for name, compiled in (("plain", False), ("compiled", True)):
        free(device)
        step = step_of(replace(plan), device, compiled)
        began = time.perf_counter()
        row[f"{name}_losses"] = run_steps(step, images, 2)
        row[f"{name}_start_seconds"] = time.perf_counter() - began
        row[f"{name}_images_per_second"] = rate(lambda step=step: run_steps(step, images, 1, 5), batch, device, seconds)  # type: ignore[misc]
        row[f"{name}_peak"] = allocated_peak(device)
    return row
