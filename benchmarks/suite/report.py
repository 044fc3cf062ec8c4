"""Results of the stages as a table, a JSON file and a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.suite.measuring import CPU, MEMORY, WALL
from benchmarks.suite.stages import BARE, NNUNET, OURS

Stages = dict[str, Any]
HEADINGS = (
    "stage", "autoseg", "nnU-Net v2", "times cheaper: processor, clock (target)", "bare passes", "times bare (target)",
    "peak memory", "times less", "pairs",
)  # fmt: skip


def table(stages: Stages) -> str:
    """Markdown table of medians: processor seconds, wall-clock seconds in brackets."""
    lines = [_row(HEADINGS), _row(["---"] * len(HEADINGS))]
    for stage in stages.values():
        middle, cheaper, bare = stage["medians"], stage["times_cheaper"], stage["times_bare"]
        ours, theirs = middle[OURS], middle[NNUNET]
        lines.append(
            _row(
                [
                    stage["title"],
                    _seconds(ours),
                    _seconds(theirs),
                    f"{cheaper[CPU]:.1f}, {cheaper[WALL]:.1f}{_against(stage, 'times_cheaper')}",
                    _seconds(middle[BARE]) if BARE in middle else "",
                    "" if bare is None else f"{bare:.2f}{_against(stage, 'times_bare')}",
                    f"{ours[MEMORY] / 2**20:.0f} against {theirs[MEMORY] / 2**20:.0f} MiB",
                    f"{cheaper[MEMORY]:.1f}",
                    str(stage["pairs"]),
                ]
            )
        )
    return "\n".join(lines)


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _against(stage: dict[str, Any], what: str) -> str:
    """The target, and whether it was missed."""
    return f" ({stage['targets'][what]:g}{'' if stage['met'][what] else ', missed'})"


def _seconds(side: dict[str, float]) -> str:
    return f"{_short(side[CPU])} ({_short(side[WALL])})"


def _short(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 0.1 else f"{seconds:.3g} s"


def merge(path: Path, machine: dict[str, Any], stages: Stages, order: list[str]) -> Stages:
    """Add the stages to the file, sorted by `order`. Other stages stay. Each has the machine it ran on."""
    all_stages: Stages = json.loads(path.read_text())["stages"] if path.exists() else {}
    all_stages.update({name: {**stage, "machine": machine} for name, stage in stages.items()})
    merged = {name: all_stages[name] for name in order if name in all_stages}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"stages": merged}, indent=1) + "\n")
    return merged


def plot(stages: Stages, path: Path) -> None:
    """How many times less processor time and memory autoseg takes than nnU-Net v2, and the target."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(stages)[::-1]
    figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(names) + 1.2), layout="constrained")
    for shift, key, colour, label in ((0.2, CPU, "tab:blue", "processor time"), (-0.2, MEMORY, "tab:gray", "peak memory")):
        values = [stages[name]["times_cheaper"][key] for name in names]
        bars = axes.barh([place + shift for place in range(len(names))], values, 0.38, color=colour, label=label)
        # Above the marks of the targets, which may lie behind a label.
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axes.bar_label(bars, [f"{value:.1f}" for value in values], padding=3, fontsize=8, bbox=box, zorder=5)
    for place, name in enumerate(names):
        target = stages[name]["targets"]["times_cheaper"]
        axes.plot([target, target], [place, place + 0.4], color="black", label="target" if place == 0 else None)
    axes.axvline(1, color="black", linewidth=0.5)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("times less than nnU-Net v2 (logarithmic)")
    axes.legend(loc="lower right", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
