"""What precision and memory format give a training step on a processor:

    python -m benchmarks.training_speed [--models a,b:variant,timm:resnet18] [--precisions fp32]

The trainer's own step, with each network in the variant and at the input size the protocol `quick` plans (or `model:variant`),
random weights and data; each network in a process of its own. The settings take turns, after one uncounted step of each.
Printed: processor seconds of one thread in the first precision, and how many times faster the other settings are, medians over
the rounds. Processors without bf16 compute it slowly: there fp32 is what counts. A network whose step is 1.1 times faster with
channels_last at its planned precision may say so in its `ModelSpec`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch

from autoseg.data.loader import Batch
from autoseg.models import registry
from autoseg.planning.geometry import SpatialPlan
from autoseg.planning.sizing import ModelRequest, fit_model
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import ModelPlan, Normalisation, Training
from autoseg.training.losses import Loss
from autoseg.training.optim import make_optimizer
from autoseg.training.step import Step

CPU = torch.device("cpu")
SCHEME = LabelScheme(names=("background", "object"), members=((0,), (1,)))
PLAIN = Normalisation(scheme="constant", mean=(127.5,) * 3, std=(64.0,) * 3)
TRAINING = Training(epochs=1, loss="dice_ce", learning_rates=(1e-4,))
BUDGET = 8 << 30
FORMS = ("contiguous", "channels_last")
PRECISIONS = "fp32,bf16"


def planned(model: str, side: int, batch: int) -> tuple[str, tuple[int, int]]:
    """The variant and input size `quick` gives a model."""
    request = ModelRequest(
        spec=registry.spec(model),
        channels=3,
        outputs=2,
        precision="bf16",
        device="cpu",
        optimizer=TRAINING.optimizer,
        budget=BUDGET,
        batch=batch,
    )
    fit, _ = fit_model(request, SpatialPlan(kind="resize", side=side, native=(side, side)), "quick")
    return fit.variant, fit.input_size


def some_batch(size: tuple[int, int], batch: int) -> Batch:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8)
    blocks = torch.rand(batch, size[0] // 32, size[1] // 32) > 0.7
    return Batch(images, blocks.repeat_interleave(32, 1).repeat_interleave(32, 2).to(torch.uint8), None, ("case",) * batch)


def step_of(model: str, variant: str, size: tuple[int, int], batch: int, precision: str, form: str) -> Step:
    plan = ModelPlan(
        model=model, variant=variant, input_size=size, batch_size=batch, accumulate=1, precision=precision, pretrained="none",
        learning_rate=1e-4, warmup_epochs=0, normalisation=PLAIN, preprocessing="k", parameters=0, flops=0, memory=0,
        memory_format=form,
    )  # fmt: skip
    torch.manual_seed(0)
    network = registry.build(model, variant, num_classes=2, input_size=size).train()
    optimizer = make_optimizer(network, TRAINING, 1e-4)
    return Step(network, optimizer, Loss(TRAINING.loss, SCHEME), plan, TRAINING.gradient_clip, CPU)


def model_and_variant(name: str) -> tuple[str, str]:
    """Of "unet", "unet:wide" and "timm:resnet18"."""
    model, _, variant = ("", "", "") if name.startswith("timm:") else name.partition(":")
    return model or name, variant


def measure(name: str, precisions: list[str], side: int, batch: int, rounds: int) -> str:
    """The row of a model."""
    torch.set_num_threads(1)
    model, variant = model_and_variant(name)
    chosen, size = (variant, (side, side)) if variant else planned(model, side, batch)
    data = some_batch(size, batch)
    steps = [step_of(model, chosen, size, batch, precision, form) for precision in precisions for form in FORMS]
    for step in steps:
        step(data, 1e-4, 0)
    seconds: list[list[float]] = [[] for _ in steps]
    for number in range(rounds):
        for step, taken in zip(steps, seconds, strict=True):
            begun = time.process_time()
            step(data, 1e-4, number + 1)
            taken.append(time.process_time() - begun)

    def faster(one: int, other: int) -> str:
        return f"{statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True)):.2f}"

    last = [faster(2, 3)] if len(precisions) > 1 else []
    ratios = " | ".join([*(faster(0, number) for number in range(1, len(steps))), *last])
    return f"| `{model}` | {chosen} | {statistics.median(seconds[0]):.2f} s | {ratios} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(registry.names()))
    parser.add_argument("--precisions", default=PRECISIONS, help=f"one or two (default: {PRECISIONS})")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    precisions = options.precisions.split(",")
    if options.one:
        print(json.dumps(measure(options.one, precisions, options.side, options.batch, options.rounds)))
        return
    heads = ["model", "variant", precisions[0], "channels last"]
    for other in precisions[1:2]:
        heads += [other, f"{other}, channels last", f"channels last under {other}"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    numbers = [f"--{name}={getattr(options, name)}" for name in ("precisions", "side", "batch", "rounds")]
    for name in options.models.split(","):
        command = [sys.executable, "-m", "benchmarks.training_speed", "--one", name, *numbers]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name}:\n{done.stderr}")
        print(json.loads(done.stdout.splitlines()[-1]), flush=True)


if __name__ == "__main__":
    main()
