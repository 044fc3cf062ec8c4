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

import torch
from torch.nn import functional as F

from autoseg.data.loader import Batch
from autoseg.inference.precision import autocast
from autoseg.models import registry
from autoseg.preprocessing.normalise import normalise
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import ModelPlan, Normalisation, Training
from autoseg.training.losses import Loss
from autoseg.training.optim import learning_rate_at, make_optimizer
from autoseg.training.step import Step, step_seed

CPU = torch.device("cpu")
SCHEME = LabelScheme(("background", "object"), ((0,), (1,)))
PLAIN = Normalisation("constant", (0.5,) * 3, (0.25,) * 3)
LIKE = "bare with the plan's loss"
TRAINING = Training(1, "dice_ce", (1e-4,))


def measured(work: Callable[[], object]) -> float:
    """Seconds of processor time."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def compare(model: str, side: int, size: int, rounds: int, precision: str) -> None:
    variant = registry.spec(model).variants[0].name
    plan = ModelPlan(model, variant, (side, side), size, 1, precision, "none", 1e-4, 0, PLAIN, "k", 0, 0, 0)  # type: ignore[arg-type]
    images = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8)
    labels = (torch.rand(size, side // 16, side // 16) > 0.7).repeat_interleave(16, 1).repeat_interleave(16, 2).to(torch.uint8)
    batch = Batch(images, labels, None, ("case",) * size)

    def network_and_optimizer() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        network = registry.build(model, variant, in_channels=3, num_classes=2).train()
        return network, make_optimizer(network, TRAINING, 1e-4)

    bare_network, bare_optimizer = network_and_optimizer()
    inputs, wanted = normalise(images, PLAIN, None), labels.long()

    def bare(loss: Loss | None) -> None:
        bare_optimizer.zero_grad(set_to_none=True)
        with autocast(precision, CPU):
            output = bare_network(inputs)
        value = F.cross_entropy(output.logits.float(), wanted) if loss is None else loss(output, labels)
        value.backward()
        bare_optimizer.step()

    network, optimizer = network_and_optimizer()
    step = Step(network, optimizer, Loss(TRAINING.loss, SCHEME), plan, TRAINING.gradient_clip, CPU)  # type: ignore[arg-type]
    number = 0

    def trainer() -> None:
        nonlocal number
        rate = learning_rate_at(number, 10_000, 1e-4, "rex")
        step(batch, rate, step_seed(0, 0, number))
        number += 1

    chains: dict[str, Callable[[], None]] = {
        "bare": lambda: bare(None), LIKE: lambda: bare(Loss(TRAINING.loss, SCHEME)), "trainer": trainer,
    }  # fmt: skip
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
