"""What makes a training step on a processor faster: precision, memory format, optimiser, threads, compiling.

    python -m benchmarks.training_speed [--what formats|optimisers|threads|compile] [--models a,b] [--side 224] [--batch 4]

The trainer's own step, with each network in the variant and at the input size the protocol `quick` plans, random weights
and data; each network in a process of its own. The settings take turns (A B C A B C ...), after a step of each that is not
counted; printed is the median over the rounds of a setting's ratio to the first one. `formats`, `optimisers` and
`compile` count processor time of one thread, `threads` seconds on the clock (nothing else should be running). Compiling
begins without a cache, and tells the processor seconds until the first step was done, compiler included; with optimisers the
update alone is told.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn

from autoseg.data.loader import Batch
from autoseg.models import registry
from autoseg.models.contract import SegmentationNetwork
from autoseg.planning.geometry import Frame
from autoseg.planning.sizing import Need, fit_model
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import ModelPlan, Normalisation, Training
from autoseg.training.losses import Loss
from autoseg.training.optim import decayed
from autoseg.training.step import Step

CPU = torch.device("cpu")
SCHEME = LabelScheme(names=("background", "object"), members=((0,), (1,)))
PLAIN = Normalisation(scheme="constant", mean=(127.5,) * 3, std=(64.0,) * 3)
TRAINING = Training(epochs=1, loss="dice_ce", learning_rates=(1e-4,))
BUDGET = 8 << 30
# name -> (precision, memory format, optimiser, threads, compiled). The first of each kind is what others are compared with.
Setting = tuple[str, str, str, int, bool]
SETTINGS: dict[str, dict[str, Setting]] = {
    "formats": {
        f"{precision} {name}": (precision, form, "plain", 1, False)
        for precision in ("fp32", "bf16")
        for name, form in (("contiguous", "contiguous"), ("channels last", "channels_last"))
    },
    "optimisers": {name: ("bf16", "contiguous", name, 1, False) for name in ("plain", "foreach", "fused")},
    "threads": {f"{threads} threads": ("bf16", "contiguous", "plain", threads, False) for threads in (1, 2)},
    "compile": {
        name: ("bf16", "contiguous", "plain", 1, compiled) for name, compiled in (("as it is", False), ("compiled", True))
    },
}
CLOCKS: dict[str, Callable[[], float]] = {"threads": time.perf_counter}


def planned(model: str, side: int, batch: int) -> tuple[str, tuple[int, int]]:
    """The variant and input size `quick` gives a model."""
    need = Need(
        spec=registry.spec(model),
        channels=3,
        outputs=2,
        precision="bf16",
        optimizer=TRAINING.optimizer,
        budget=BUDGET,
        batch=batch,
    )
    found, _ = fit_model(need, Frame(kind="whole", side=side, native=(side, side)), "quick")
    return found.variant, found.input_size


def optimiser_of(network: nn.Module, kind: str) -> torch.optim.Optimizer:
    with_decay, without = decayed(network)
    groups = [{"params": with_decay, "weight_decay": 0.01}, {"params": without, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-4, foreach=kind == "foreach", fused=kind == "fused")


def some_batch(size: tuple[int, int], batch: int) -> Batch:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8)
    blocks = torch.rand(batch, size[0] // 32, size[1] // 32) > 0.7
    return Batch(images, blocks.repeat_interleave(32, 1).repeat_interleave(32, 2).to(torch.uint8), None, ("case",) * batch)


def step_of(model: str, variant: str, size: tuple[int, int], batch: int, setting: Setting) -> Step:
    precision, form, optimiser, _, compiled = setting
    plan = ModelPlan(
        model=model, variant=variant, input_size=size, batch_size=batch, accumulate=1, precision=precision, pretrained="none",
        learning_rate=1e-4, warmup_epochs=0, normalisation=PLAIN, preparation="k", parameters=0, flops=0, memory=0,
        memory_format=form,
    )  # fmt: skip
    torch.manual_seed(0)
    network: SegmentationNetwork = registry.build(model, variant, num_classes=2, input_size=size).train()
    step = Step(network, optimiser_of(network, optimiser), Loss(TRAINING.loss, SCHEME), plan, TRAINING.gradient_clip, CPU)
    if compiled:
        step.network = torch.compile(network)  # type: ignore[assignment]
    return step


def measure(what: str, model: str, side: int, batch: int, rounds: int) -> dict[str, object]:
    variant, size = planned(model, side, batch)
    clock = CLOCKS.get(what, time.process_time)
    data = some_batch(size, batch)
    steps: dict[str, Step] = {}
    first: dict[str, float] = {}
    failed: dict[str, str] = {}
    for name, setting in SETTINGS[what].items():
        torch.set_num_threads(setting[3])
        begun = sum(os.times()[:4])
        try:
            made = step_of(model, variant, size, batch, setting)
            made(data, 1e-4, 0)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:90]}"
            continue
        first[name] = sum(os.times()[:4]) - begun
        steps[name] = made
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds):
        for name, step in steps.items():
            torch.set_num_threads(SETTINGS[what][name][3])
            begun = clock()
            step(data, 1e-4, number + 1)
            seconds[name].append(clock() - begun)
    updates = {name: update(step) for name, step in steps.items()}
    return {"variant": variant, "size": size, "seconds": seconds, "first": first, "failed": failed, "updates": updates}


def update(step: Step) -> float:
    """Median processor seconds of the optimiser's part of a step."""
    seconds = []
    for _ in range(5):
        begun = time.process_time()
        step.optimizer.step()
        seconds.append(time.process_time() - begun)
    return statistics.median(seconds)


def cells(found: dict[str, dict[str, object]], what: str) -> Iterator[str]:
    """A setting's median seconds, and for all but the first how many times faster it was."""
    seconds: dict[str, list[float]] = found["seconds"]  # type: ignore[assignment]
    base = seconds.get(next(iter(SETTINGS[what])))
    for number, name in enumerate(SETTINGS[what]):
        if name not in seconds:
            yield found["failed"][name]  # type: ignore[misc]
            continue
        ratio = statistics.median(one / other for one, other in zip(base, seconds[name], strict=True)) if base else 0.0
        alone = f", update {1000 * found['updates'][name]:.0f} ms" if what == "optimisers" else ""  # type: ignore[index]
        compiling = f", first {found['first'][name]:.0f} s" if SETTINGS[what][name][4] else ""  # type: ignore[index]
        yield f"{statistics.median(seconds[name]):.2f} s{alone}" + (f" ({ratio:.2f} x{compiling})" if number else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=list(SETTINGS), default="formats")
    parser.add_argument("--models", default=",".join(registry.names()))
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.what, options.one, options.side, options.batch, options.rounds)))
        return
    print(f"{options.what}: {options.batch} images of about {options.side} x {options.side}, {options.rounds} rounds")
    print(f"| model | variant | {' | '.join(SETTINGS[options.what])} |")
    print("|---|---|" + "---|" * len(SETTINGS[options.what]))
    numbers = [f"--{name}={getattr(options, name)}" for name in ("what", "side", "batch", "rounds")]
    for name in options.models.split(","):
        with tempfile.TemporaryDirectory() as cache:
            compiler = {"TORCHINDUCTOR_CACHE_DIR": cache, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.training_speed", "--one", name, *numbers],
                capture_output=True, text=True, check=False, env={**os.environ, **compiler},
            )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{name}:\n{done.stderr}")
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"| `{name}` | {found['variant']} | {' | '.join(cells(found, options.what))} |", flush=True)


if __name__ == "__main__":
    main()
