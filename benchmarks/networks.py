"""What each network costs: parameters, processor seconds for one image, memory.

    python -m benchmarks.networks [--models a,b] [--size 224] [--rounds 5] [--threads 1]

Default variants, 3 channels, 2 classes, float32, batch 1, random weights. Seconds are processor time of the best round,
since these count on a busy machine; memory is the most the process held while it did one training step (forward,
backward, AdamW), each network in a process of its own, less what it held before the network was built.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from torch.nn import functional as F

from autoseg import models as registry
from autoseg.models.base import ModelOutput


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(name: str, size: int, rounds: int, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    before = peak()
    network = registry.build(name, input_size=(size, size))
    image = torch.rand(1, 3, size, size)
    network.eval()
    seconds = []
    with torch.inference_mode():
        network(image)
        for _ in range(rounds):
            started = time.process_time()
            network(image)
            seconds.append(time.process_time() - started)
    predicting = peak() - before
    network.train()
    optimizer = torch.optim.AdamW(network.parameters())
    images = torch.rand(2, 3, size, size)
    target = torch.zeros(2, 2, size, size)
    target[:, 1, size // 4 : size // 2, size // 4 : size // 2] = 1
    target[:, 0] = 1 - target[:, 1]
    output: ModelOutput = network(images)
    valid = torch.ones(2, 1, size, size)
    loss = output.own_loss(target, valid) if output.own_loss else F.cross_entropy(output.logits, target.argmax(1))
    loss.backward()
    optimizer.step()
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "seconds": min(seconds),
        "predicting": predicting,
        "training": peak() - before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(registry.names()))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.size, options.rounds, options.threads)))
        return
    print(f"{options.size} x {options.size}, {options.threads} thread(s)")
    print("| model | parameters | CPU seconds an image | memory predicting one | memory of a training step of two |")
    print("|---|---|---|---|---|")
    for name in options.models.split(","):
        words = ["--one", name, "--size", str(options.size), "--rounds", str(options.rounds)]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.networks", *words, "--threads", str(options.threads)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{name}:\n{done.stderr}")
        row = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| `{name}` | {row['parameters'] / 1e6:.1f} M | {row['seconds']:.2f} | {row['predicting'] / 2**30:.2f} GiB "
            f"| {row['training'] / 2**30:.2f} GiB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
