"""The stages' figures as a table, as JSON that later runs add to, and as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.suite.measuring import CPU, MEMORY, WALL
from benchmarks.suite.stages import BARE, NNUNET, OURS

Stages = dict[str, Any]
HEADINGS = (
    "stage", "autoseg", "nnU-Net v2", "times cheaper: processor, clock (bound)", "bare passes", "times bare (bound)",
    "peak memory", "times less", "pairs",
)  # fmt: skip


def table(stages: Stages) -> str:
    """Markdown. Seconds are of the processor, those on the clock in brackets; medians."""
    lines = [_row(HEADINGS), _row(["---"] * len(HEADINGS))]
    for found in stages.values():
        middle, cheaper, bare = found["medians"], found["times_cheaper"], found["times_bare"]
        ours, theirs = middle[OURS], middle[NNUNET]
        lines.append(
            _row(
                [
                    found["title"],
                    _seconds(ours),
                    _seconds(theirs),
                    f"{cheaper[CPU]:.1f}, {cheaper[WALL]:.1f}{_against(found, 'times_cheaper')}",
                    _seconds(middle[BARE]) if BARE in middle else "",
                    "" if bare is None else f"{bare:.2f}{_against(found, 'times_bare')}",
                    f"{ours[MEMORY] / 2**20:.0f} against {theirs[MEMORY] / 2**20:.0f} MiB",
                    f"{cheaper[MEMORY]:.1f}",
                    str(found["pairs"]),
                ]
            )
        )
    return "\n".join(lines)


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _against(found: dict[str, Any], what: str) -> str:
    """The bound, and whether it was missed."""
    return f" ({found['targets'][what]:g}{'' if found['met'][what] else ', missed'})"


def _seconds(side: dict[str, float]) -> str:
    return f"{_short(side[CPU])} ({_short(side[WALL])})"


def _short(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 0.1 else f"{seconds:.3g} s"


def merge(path: Path, machine: dict[str, Any], stages: Stages, order: list[str]) -> Stages:
    """Adds the stages to the file, in the order given; those measured before stay, each with the machine it ran on."""
    known: Stages = json.loads(path.read_text())["stages"] if path.exists() else {}
    known.update({name: {**found, "machine": machine} for name, found in stages.items()})
    merged = {name: known[name] for name in order if name in known}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"stages": merged}, indent=1) + "\n")
    return merged


def plot(stages: Stages, path: Path) -> None:
    """How many times less processor time and memory autoseg takes than nnU-Net v2, and the bound."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(stages)[::-1]
    figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(names) + 1.2), layout="constrained")
    for shift, key, colour, label in ((0.2, CPU, "tab:blue", "processor time"), (-0.2, MEMORY, "tab:gray", "peak memory")):
        values = [stages[name]["times_cheaper"][key] for name in names]
        bars = axes.barh([place + shift for place in range(len(names))], values, 0.38, color=colour, label=label)
        axes.bar_label(bars, [f"{value:.1f}" for value in values], padding=3, fontsize=8)
    for place, name in enumerate(names):
        wanted = stages[name]["targets"]["times_cheaper"]
        axes.plot([wanted, wanted], [place, place + 0.4], color="black", label="bound" if place == 0 else None)
    axes.axvline(1, color="black", linewidth=0.5)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("times less than nnU-Net v2 (logarithmic)")
    axes.legend(loc="lower right", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
