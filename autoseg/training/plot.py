"""progress.png: what to look at while a run is under way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoseg.support.files import atomic_write
from autoseg.training.csv_logger import Row

NAME = "progress.png"


def draw(folder: Path, rows: Sequence[Row], classes: Sequence[str], title: str) -> None:
    """Write progress.png: loss, validation Dice, learning rate, seconds and fraction of time waiting for data, by epoch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 6.5))
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    # Fixed margins: an automatic layout takes as long as the drawing.
    figure.subplots_adjust(left=0.07, right=0.95, bottom=0.07, top=0.9, hspace=0.15, wspace=0.14)
    loss, dice, rate, time = figure.subplots(2, 2, sharex=True).flat
    marker = "o" if len(rows) < 3 else ""
    loss.plot(*_series(rows, "loss"), marker=marker)
    loss.set_title("training loss")
    if len(classes) > 1:
        for name in classes:
            dice.plot(*_series(rows, f"dice_{name}"), marker=marker, linewidth=1, label=name)
        dice.plot(*_series(rows, "class_mean_dice"), marker=marker, color="black", linestyle="--", label="class mean")
    micro = "mDSC" if len(classes) > 1 else classes[0]
    dice.plot(*_series(rows, "micro_dice"), marker=marker, color="black", linewidth=2, label=micro)
    dice.set_ylim(0, 1)
    dice.set_title("validation Dice, whole images")
    dice.legend(loc="lower right", fontsize="small")
    rate.plot(*_series(rows, "learning_rate"), marker=marker)
    rate.set_ylim(bottom=0)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    rate.set_title("learning rate")
    time.plot(*_series(rows, "seconds"), marker=marker, label="training")
    time.plot(*_series(rows, "validation_seconds"), marker=marker, label="validation")
    wait_axes = time.twinx()
    wait_axes.plot(
        *_series(rows, "data_wait"), marker=marker, color="tab:red", linestyle="--", label="waiting for data (fraction)"
    )
    wait_axes.set_ylim(0, 1)
    # Space above the lines for the legend.
    time.set_ylim(0, 1.35 * max((row["seconds"] for row in rows), default=1.0))
    time.set_title("seconds per epoch")
    lines = [*time.get_lines(), *wait_axes.get_lines()]
    time.legend(lines, [str(line.get_label()) for line in lines], loc="upper right", fontsize="small")
    for axes in (loss, dice, rate, time):
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (rate, time):
        axes.set_xlabel("epoch")
    with atomic_write(folder / NAME) as temporary:
        figure.savefig(temporary, dpi=100)


def _series(rows: Sequence[Row], column: str) -> tuple[list[float], list[float]]:
    """Epochs and values of a column, for the rows that have it."""
    points = [(row["epoch"], row[column]) for row in rows if column in row]
    return [epoch for epoch, _ in points], [value for _, value in points]
