"""How tensors should lie in memory for a network to train fastest on this machine: tried on a few steps before the first
training, kept under the root, found there ever after.

    <root>/speed/unet_16_0a1b2c3d4e5f.json       a file for each network, input size, precision and machine

Only the memory format is chosen by timing: it changes results by rounding alone. Only processors are timed, and what was
timed on one machine is not taken for another.
"""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from autoseg.data.loader import Batch, Batches
from autoseg.inference.precision import usable
from autoseg.models.contract import SegmentationNetwork
from autoseg.planning import overrides
from autoseg.schema.plan import Decision
from autoseg.schema.speed import Timing
from autoseg.support.errors import AutosegError
from autoseg.support.files import hash_text, read_artefact, write_artefact
from autoseg.support.workers import available_cores
from autoseg.training.checkpoint import build_network
from autoseg.training.losses import Loss
from autoseg.training.step import Step, parts
from autoseg.training.trainer import Task

logger = logging.getLogger(__name__)

CONTIGUOUS, CHANNELS_LAST = "contiguous", "channels_last"
FOLDER = "speed"
# The usual format stays unless the other one is faster by this much, by both clocks: less may be chance.
_WORTH = 1.1
# Each format is tried so often; no further round is begun after so many seconds.
_ROUNDS, _MOST_ROUNDS, _SECONDS = 2, 4, 6.0
# As many images at once as training will see, since the gain depends on it, or fewer where a step takes longer than this; two
# at least, which batch norm wants.
_LONGEST_STEP, _FEWEST_IMAGES = 1.5, 2
# A training of fewer steps is over before the timing has paid for itself.
_FEW_STEPS = 50
# Seconds on the clock, and of processor time of all threads. On a busy machine the former lie, with many threads the latter.
_CLOCKS: tuple[Callable[[], float], Callable[[], float]] = (time.perf_counter, time.process_time)


def with_memory_format(task: Task, root: Path, began_with: str | None) -> Task:
    """The task with a memory format in place of "auto", and the reason in its plan.

    began_with: the format of the checkpoint that is gone on with, None for a fresh run: a run keeps the one it began with.
    """
    if task.model_plan.memory_format != "auto":
        return task
    if began_with is not None:
        known = _read(_path(root, task))
        told = known is not None and known.chosen == began_with
        return _decided(task, began_with, _reason(known) if known and told else "the format this run began with")
    if task.device.type != "cpu":
        return _decided(task, CONTIGUOUS, f"the usual one: nothing was timed on {task.device.type}")
    # One of a team tries, the others hear of it.
    found = _found(task, root) if task.team.leads else ("", "")
    return _decided(task, *task.team.gather(found)[0])


def time_formats(task: Task) -> Timing:
    """Train a few steps on real samples in either format, with a network that is thrown away; no file is written."""
    batch, clock = _batch(task), _CLOCKS[0]
    seconds: dict[str, float] = {}
    processor: dict[str, float] = {}
    failed: dict[str, str] = {}
    with torch.random.fork_rng([]):
        network = build_network(task.model_plan, task.plan.preparations[task.model_plan.preparation], task.scheme).train()
        few = _first(batch, _FEWEST_IMAGES)
        # Also pays for what is set up once. The clock that says less: others' work should not make the batch smaller.
        one = min(_took(task, CONTIGUOUS, network, few)) / len(few.cases)
        batch = _first(batch, max(_FEWEST_IMAGES, int(_LONGEST_STEP / max(one, 1e-9))))
        begun, rounds = clock(), 0
        while rounds < _ROUNDS or (rounds < _MOST_ROUNDS and clock() - begun < _SECONDS):
            for form in (CONTIGUOUS, CHANNELS_LAST):
                if form in failed:
                    continue
                try:
                    wall, cpu = _took(task, form, network, batch)
                except RuntimeError as error:
                    if form == CONTIGUOUS:
                        raise
                    failed[form] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                    continue
                seconds[form] = min(wall, seconds.get(form, wall))
                processor[form] = min(cpu, processor.get(form, cpu))
            rounds += 1
    chosen = CONTIGUOUS if failed or _gain(seconds, processor) < _WORTH else CHANNELS_LAST
    return Timing(
        work=_work(task),
        machine=machine(),
        images=len(batch.cases),
        seconds=seconds,
        processor_seconds=processor,
        failed=failed,
        chosen=chosen,
    )


def machine() -> dict[str, str]:
    """What decides how fast this machine computes: never its name or address."""
    return {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": str(available_cores()),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
    }


def _found(task: Task, root: Path) -> tuple[str, str]:
    """Format and reason: from the file of an earlier timing, else from one made now."""
    path = _path(root, task)
    timing = _read(path)
    if timing is None:
        training = task.plan.training
        if not training.time_formats:
            return CONTIGUOUS, "the usual one: timing is switched off (training.time_formats)"
        steps = training.epochs * -(-len(task.split.train) // task.model_plan.batch_size)
        if steps < _FEW_STEPS:
            return CONTIGUOUS, f"the usual one: {steps} steps are over before timing would have paid for itself"
        timing = time_formats(task)
        # Where another training timed the same meanwhile, both take the first answer.
        earlier = _read(path)
        if earlier is None:
            write_artefact(path, timing)
        timing = earlier or timing
    return timing.chosen, _reason(timing)


def _path(root: Path, task: Task) -> Path:
    key = hash_text(json.dumps([_work(task), machine()], sort_keys=True))[:12]
    return root / FOLDER / f"{task.model_plan.model}_{task.model_plan.variant}_{key}.json"


def _read(path: Path) -> Timing | None:
    if not path.exists():
        return None
    try:
        return read_artefact(path, Timing)
    except AutosegError as error:
        logger.warning(f"{error.problem}; timing again")
        path.unlink(missing_ok=True)
        return None


def _work(task: Task) -> dict[str, str]:
    plan, preparation = task.model_plan, task.plan.preparations[task.model_plan.preparation]
    half = usable(plan.precision, task.device)
    return {
        "model": plan.model,
        "variant": plan.variant,
        "options": json.dumps(plan.options, sort_keys=True),
        "images": str(len(parts(plan)[0])),
        "input_size": f"{plan.input_size[0]}x{plan.input_size[1]}",
        "channels": str(preparation.channels),
        "outputs": str(task.scheme.outputs),
        "precision": "fp32" if half is None else str(half).removeprefix("torch."),
        "loss": task.plan.training.loss,
    }


def _batch(task: Task) -> Batch:
    """What goes through the network at once in the training's first step."""
    training, (part, *_) = task.plan.training, parts(task.model_plan)
    batches = Batches(
        task.store, task.split.train, task.model_plan, training, task.scheme, training.seed, workers=1, samples=part
    )
    first = batches.epoch(0)
    try:
        return next(first)
    finally:
        first.close()  # type: ignore[attr-defined]


def _first(batch: Batch, images: int) -> Batch:
    statistics = None if batch.statistics is None else batch.statistics[:images]
    return Batch(batch.images[:images], batch.labels[:images], statistics, batch.cases[:images])


def _took(task: Task, form: str, network: SegmentationNetwork, batch: Batch) -> tuple[float, ...]:
    """Seconds of a step by each clock."""
    plan, training = task.model_plan, task.plan.training
    plan = replace(plan, batch_size=len(batch.cases), accumulate=1, memory_format=form)  # type: ignore[arg-type]
    # An optimiser that holds nothing: what a real one does is the same in either format.
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    loss = Loss(training.loss, task.scheme, training.cldice)
    step = Step(network, optimizer, loss, plan, training.gradient_clip, task.device)
    before = [clock() for clock in _CLOCKS]
    step(batch, 0.0, training.seed)
    return tuple(clock() - start for clock, start in zip(_CLOCKS, before, strict=True))


def _gain(seconds: dict[str, float], processor: dict[str, float]) -> float:
    """How many times faster channels_last is, by the clock that says less."""
    return min(each[CONTIGUOUS] / max(each[CHANNELS_LAST], 1e-9) for each in (seconds, processor))


def _reason(timing: Timing) -> str:
    where = f"{timing.machine['processor']}, {timing.machine['threads']} of {timing.machine['cores']} cores"
    what = f"timed on this machine ({where}), a step of {timing.images} images"
    if timing.failed:
        return f"{what}: channels_last is not possible ({timing.failed[CHANNELS_LAST]})"
    took = ", ".join(f"{form} {seconds:.3g} s" for form, seconds in timing.seconds.items())
    gain = _gain(timing.seconds, timing.processor_seconds)
    verdict = f"{gain:.2f} times faster" if timing.chosen == CHANNELS_LAST else f"less than {_WORTH:g} times faster"
    return f"{what}: {took}; channels_last is {verdict}"


def _decided(task: Task, form: str, because: str) -> Task:
    model_plan = replace(task.model_plan, memory_format=form)  # type: ignore[arg-type]
    subject = f"models.{model_plan.model}.memory_format"
    plan = overrides.with_decision(task.plan, Decision(subject, form, because))
    return replace(task, model_plan=model_plan, plan=replace(plan, models={**plan.models, model_plan.model: model_plan}))


def _processor() -> str:
    """The processor's trade name, where the system tells."""
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()
