"""The trainer's step against the bare forward pass, backward pass and optimiser of the same network.

    python -m benchmarks.step [--models efficientnet_lite0_upernet,unet] [--side 256] [--batch 4] [--rounds 7]

Both see the same batch at the same precision; the bare step takes plain cross entropy. The trainer's adds the plan's loss
(cross entropy and soft Dice), normalisation on the device, clipping, the guard against what is not a number, and the schedule.
Counts processor time; the two take turns, and the median of the rounds' ratios is printed. The trainer's own loss alone is
printed too, since it is a choice and not overhead.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import torch
from torch.nn import functional as F

from autoseg.data.loader import Batch
from autoseg.inference.precision import autocast
from autoseg.models import registry
from autoseg.models.base import SegmentationNetwork
from autoseg.preprocessing.normalise import normalise
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import ModelPlan, Normalisation, Training
from autoseg.training.losses import Loss
from autoseg.training.optim import learning_rate_at, make_optimizer
from autoseg.training.step import Step, step_seed

CPU = torch.device("cpu")
SCHEME = LabelScheme(names=("background", "blob", "disc"), members=((0,), (1,), (2,)))
PLAIN = Normalisation(scheme="constant", mean=(0.5,) * 3, std=(0.25,) * 3)
LIKE = "bare with the plan's loss"
TRAINING = Training(epochs=1, loss="dice_ce", learning_rates=(1e-4,))


def measured(work: Callable[[], object]) -> float:
    """Seconds of processor time."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


@dataclass(frozen=True)
class Ingredients:
    """The same network, plan and batch for every kind of step."""

    plan: ModelPlan
    network: SegmentationNetwork
    optimizer: torch.optim.Optimizer
    batch: Batch

    @classmethod
    def of(cls, model: str, variant: str, side: int, size: int, precision: str, device: torch.device) -> Ingredients:
        plan = ModelPlan(
            model=model,
            variant=variant,
            input_size=(side, side),
            batch_size=size,
            accumulate=1,
            precision=precision,
            pretrained="none",
            learning_rate=1e-4,
            warmup_epochs=0,
            normalisation=PLAIN,
            preprocessing="k",
            parameters=0,
            flops=0,
            memory=0,
        )  # type: ignore[arg-type]
        random = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8, generator=random)
        coarse = torch.randint(0, len(SCHEME.names), (size, side // 16, side // 16), dtype=torch.uint8, generator=random)
        labels = coarse.repeat_interleave(16, 1).repeat_interleave(16, 2)
        torch.manual_seed(0)
        network = registry.build(model, variant, in_channels=3, num_classes=SCHEME.outputs, input_size=(side, side))
        network.train().to(device)
        batch = Batch(images, labels, None, ("case",) * size)
        return cls(plan, network, make_optimizer(network, TRAINING, 1e-4), batch)


def bare_step(
    model: str, variant: str, side: int, size: int, precision: str, device: torch.device = CPU, loss: Loss | None = None
) -> Callable[[], None]:
    """Forward pass, loss, backward pass, optimiser. loss: plain cross entropy where it is None."""
    ingredients = Ingredients.of(model, variant, side, size, precision, device)
    inputs, labels = normalise(ingredients.batch.images.to(device), PLAIN, None), ingredients.batch.labels.to(device)
    targets = labels.long()

    def bare() -> None:
        ingredients.optimizer.zero_grad(set_to_none=True)
        with autocast(precision, device):
            output = ingredients.network(inputs)
        value = F.cross_entropy(output.logits.float(), targets) if loss is None else loss(output, labels)
        value.backward()
        ingredients.optimizer.step()

    return bare


def trainer_step(
    model: str, variant: str, side: int, size: int, precision: str, device: torch.device = CPU
) -> Callable[[], None]:
    """A step of the trainer, the way from stored values to the device included."""
    ingredients = Ingredients.of(model, variant, side, size, precision, device)
    network, optimizer = ingredients.network, ingredients.optimizer
    step = Step(network, optimizer, Loss(TRAINING.loss, SCHEME), ingredients.plan, TRAINING.gradient_clip, device)
    number = count()

    def trainer() -> None:
        now = next(number)
        step(ingredients.batch, learning_rate_at(now, 10_000, 1e-4, "rex"), step_seed(0, 0, now))

    return trainer


def compare(model: str, side: int, size: int, rounds: int, precision: str) -> None:
    variant = registry.spec(model).variants[0].name
    chains = {
        "bare": bare_step(model, variant, side, size, precision),
        LIKE: bare_step(model, variant, side, size, precision, loss=Loss(TRAINING.loss, SCHEME)),
        "trainer": trainer_step(model, variant, side, size, precision),
    }
    for chain in chains.values():
        chain()
    seconds = [{name: measured(chain) for name, chain in chains.items()} for _ in range(rounds)]
    middle = {name: statistics.median(each[name] for each in seconds) for name in chains}
    ratio = {name: statistics.median(each[name] / each["bare"] for each in seconds) for name in chains}
    like = statistics.median(each["trainer"] / each[LIKE] for each in seconds)
    print(
        f"{model} {variant}, {size} x 3 x {side} x {side}, {precision}: bare {middle['bare']:.3f} s, with the plan's loss "
        f"{ratio[LIKE]:.3f} x, trainer {ratio['trainer']:.3f} x ({like:.3f} x of the same loss)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="efficientnet_lite0_upernet,unet")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", default="bf16")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for model in options.models.split(","):
        compare(model, options.side, options.batch, options.rounds, options.precision)


if __name__ == "__main__":
    main()
