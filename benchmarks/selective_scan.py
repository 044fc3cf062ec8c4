"""The selective scan in segments against two sequential loops: `python -m benchmarks.selective_scan`.

loop: the recurrence row by row, with as few operations as it takes. mamba loop: in the order and layout of Mamba's
formula, (batch, channels, length, state): all decays and inputs first, then one step after the other. Its gradient takes
many minutes and is left out, but for one round of the 64 x 64 map with narrow states where --patient is given. All take
turns; times and ratios are medians over the rounds, in processor time of one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.models.layers.selective_scan import selective_scan, sequential_scan

Scan = Callable[..., Tensor]
GROUPS, STATE = 4, 16
# (length, width): Swin-UMamba's last to first stage at 224 pixels, the first at 256 (a 64 x 64 map), that map with the
# narrow states of a small network, and the first stage at 1024 pixels, narrowed so that the loops' memory suffices.
CASES = ((49, 1536), (196, 768), (784, 384), (3136, 192), (4096, 192), (4096, 32), (65_536, 32))


def mamba_loop(x: Tensor, step: Tensor, A: Tensor, B: Tensor, C: Tensor, skip: Tensor, bias: Tensor) -> Tensor:
    length, batch, groups, width = x.shape

    def channels(tensor: Tensor) -> Tensor:
        return tensor.permute(1, 2, 3, 0).reshape(batch, groups * width, length)

    def states(tensor: Tensor) -> Tensor:
        return tensor.permute(1, 2, 0, 3).repeat_interleave(width, dim=1)

    u, delta = channels(x), channels(F.softplus(step + bias))
    decays = torch.exp(delta[..., None] * A.mT.flatten(0, 1)[:, None])
    inputs = (delta * u)[..., None] * states(B)
    readers, state, outputs = states(C), x.new_zeros(batch, groups * width, A.shape[1]), []
    for t in range(length):
        state = decays[:, :, t] * state + inputs[:, :, t]
        outputs.append((state * readers[:, :, t]).sum(dim=-1))
    y = torch.stack(outputs, dim=-1) + skip.flatten()[:, None] * u
    return y.view(batch, groups, width, length).permute(3, 0, 1, 2)


def arguments(length: int, width: int) -> list[Tensor]:
    """Of the sizes and the spread a fresh Swin-UMamba has."""
    source = torch.Generator().manual_seed(0)
    rows = (length, 1, GROUPS)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source)

    A = -torch.arange(1.0, STATE + 1)[:, None].expand(GROUPS, STATE, width).contiguous()
    return [
        normal(*rows, width),
        0.1 * normal(*rows, width),
        A,
        normal(*rows, STATE),
        normal(*rows, STATE),
        torch.ones(GROUPS, width),
        normal(GROUPS, width) - 4.6,
    ]


def run(scan: Scan, tensors: list[Tensor], train: bool) -> tuple[float, list[Tensor]]:
    """Processor seconds for one call (and its gradients), and what came out."""
    leaves = [tensor.clone().requires_grad_(train) for tensor in tensors]
    start = time.process_time()
    y = scan(*leaves)
    if train:
        y.backward(torch.ones_like(y))
    seconds = time.process_time() - start
    return seconds, [y.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def kept_megabytes(scan: Scan, tensors: list[Tensor]) -> float:
    """What the graph holds until the backward pass, without what the caller holds anyway."""
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    known = {leaf.untyped_storage()._cdata for leaf in leaves}
    storages = {}

    def count(tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage

    with torch.autograd.graph.saved_tensors_hooks(count, lambda nothing: nothing):
        scan(*leaves)
    return sum(storage.nbytes() for key, storage in storages.items() if key not in known) / 1e6


def compare_with_patience(length: int, width: int) -> str:
    """One step with gradients: Mamba's loop and ours."""
    tensors = arguments(length, width)
    (loop, _), (ours, _) = (run(scan, tensors, train=True) for scan in (mamba_loop, selective_scan))
    return f"train, one round {length:7}{width:7}: mamba loop {loop:.1f} s, ours {ours:.3f} s, {loop / ours:.0f}x"


def compare(length: int, width: int, train: bool, rounds: int) -> str:
    tensors = arguments(length, width)
    scans: dict[str, Scan] = {"ours": selective_scan, "loop": sequential_scan}
    if not train:
        scans["mamba loop"] = mamba_loop
    run(selective_scan, tensors, train)
    seconds: dict[str, list[float]] = {name: [] for name in scans}
    results = {}
    for _ in range(rounds):
        for name, scan in scans.items():
            took, results[name] = run(scan, tensors, train)
            seconds[name].append(took)
    pairs = zip(results["ours"], results["loop"], strict=True)
    error = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    cells = [f"{'train' if train else 'predict':8}{length:7}{width:7}", f"{statistics.median(seconds['ours']):8.3f}"]
    for name in ("loop", "mamba loop"):
        if name in scans:
            ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds["ours"], strict=True))
            cells.append(f"{statistics.median(seconds[name]):9.3f}{ratio:7.1f}x")
        else:
            cells.append(f"{'-':>9}{'-':>8}")
    cells.append(f"{error:10.1e}")
    if train:
        ours, loop = kept_megabytes(selective_scan, tensors), kept_megabytes(sequential_scan, tensors)
        cells.append(f"{ours:9.1f}{loop:9.1f}")
    return " ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--longest", type=int, default=max(length for length, _ in CASES))
    parser.add_argument("--patient", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"one thread, batch 1, {GROUPS} groups, state {STATE}; seconds, and loop / ours")
    print("mode     length  width     ours      loop   ratio  mamba l.  ratio  max rel.err  kept MB: ours, loop")
    for train in (False, True):
        for length, width in CASES:
            if length <= options.longest:
                print(compare(length, width, train, options.rounds), flush=True)
    if options.patient:
        print(compare_with_patience(4096, 32))


if __name__ == "__main__":
    main()
