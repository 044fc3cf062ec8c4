"""Activation memory for the backward pass, fake tensors against a real training step, for every model and variant.

    python -m benchmarks.memory [--models A,B] [--device cpu] [--precision fp32] [--size 64x96] [--batch 2] [--step]

Prints a table. With --step also the peak of a whole step (forward, loss, backward, AdamW) in its own process, as growth
of its resident memory (on a GPU, PyTorch's own count), against the planner's estimate.
"""

from __future__ import annotations

import argparse
import gc
import resource
import subprocess
import sys

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from autoseg import models
from autoseg.planning.memory import measure, training_memory


def really_saved(network: nn.Module, images: Tensor, half: bool = False) -> int:
    """Bytes that a real forward pass keeps for the backward pass, without weights."""
    own = {tensor.untyped_storage()._cdata for tensor in [*network.parameters(), *network.buffers()]}
    saved = {}

    def count(tensor: Tensor) -> None:
        # The storage is kept, not the tensor: with that the graph would never be freed.
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage

    with saved_tensors_hooks(count, lambda nothing: nothing), torch.autocast(images.device.type, torch.bfloat16, enabled=half):
        output = network.train()(images)
    total = sum(storage.nbytes() for storage in saved.values())
    del output
    return total


def compare(name: str, variant: str, shape: tuple[int, int, int, int], precision: str, device: str = "cpu") -> tuple[int, int]:
    """Bytes measured on fake tensors, and bytes really saved."""
    with torch.device("meta"):
        empty = models.build(name, variant, shape[1], 3, input_size=shape[2:])
    planned = measure(empty, shape, precision, device)
    network = models.build(name, variant, shape[1], 3, input_size=shape[2:]).to(device)
    return planned.activations, really_saved(network, torch.randn(shape, device=device), precision != "fp32")


def peak_of_a_step(name: str, variant: str, shape: tuple[int, int, int, int], precision: str, device: str) -> None:
    """Prints the planner's estimate for a step, and the memory that two steps took, in bytes."""
    network = models.build(name, variant, shape[1], 3, input_size=shape[2:]).train().to(device)
    gc.collect()
    held = sum(tensor.nbytes for tensor in [*network.parameters(), *network.buffers()])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - held
    optimizer = torch.optim.AdamW(network.parameters(), foreach=False)
    target = torch.zeros((shape[0], *shape[2:]), dtype=torch.long, device=device)
    for _ in range(2):
        with torch.autocast(device, torch.bfloat16, enabled=precision != "fp32"):
            output = network(torch.randn(shape, device=device))
        if output.own_loss is not None:
            loss = output.own_loss(F.one_hot(target, 3).movedim(-1, 1).float(), torch.ones_like(target[:, None]).float())
        else:
            loss = F.cross_entropy(output.logits.float(), target)
            loss = loss + sum(weight * extra.float().mean() for extra, weight in output.auxiliary)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    if device == "cuda":
        grown = torch.cuda.max_memory_allocated()
    else:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    planned = training_memory(measure(network, shape, precision, device), shape[0] * 3 * shape[2] * shape[3])
    print(planned, grown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(models.names()))
    parser.add_argument("--variants", default="")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--size", default="64x96")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--step", action="store_true")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    shape = (options.batch, 3, height, width)
    if options.in_this_process:
        peak_of_a_step(options.models, options.variants, shape, options.precision, options.device)
        return
    print(f"batch {options.batch}, {options.size}, {options.precision}, {options.device}")
    stepped = " step: planned | peak | ratio |" * options.step
    print(f"| model | variant | measured, MiB | really saved, MiB | ratio |{stepped}")
    print("|---|---|---|---|---|" + "---|---|---|" * options.step)
    for name in options.models.split(","):
        variants = options.variants.split(",") if options.variants else [v.name for v in models.spec(name).variants]
        for variant in variants:
            measured, real = compare(name, variant, shape, options.precision, options.device)
            row = f"| {name} | {variant} | {measured / 2**20:.1f} | {real / 2**20:.1f} | {measured / real:.3f} |"
            if options.step:
                command = [sys.executable, "-m", "benchmarks.memory", "--in-this-process"]
                command += ["--models", name, "--variants", variant, "--device", options.device]
                command += ["--precision", options.precision, "--size", options.size, "--batch", str(options.batch)]
                answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
                planned, grown = int(answer[-2]), int(answer[-1])
                row += f" {planned / 2**20:.0f} | {grown / 2**20:.0f} | {planned / grown:.2f} |"
            print(row, flush=True)
            gc.collect()


if __name__ == "__main__":
    main()
