"""selection.html: what was tried, what was eliminated and why, and what was confirmed, as one page that needs no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from importlib import resources
from pathlib import Path

from jinja2 import Environment
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from autoseg.comparison.plots import COLOURS, MARKERS, TEXT_COLOUR, Axes, draw_svg
from autoseg.planning.time_budget import show_time
from autoseg.schema.comparison import Interval
from autoseg.schema.selection import ModelSelection
from autoseg.selection.confirm import role_text
from autoseg.selection.trials import describe
from autoseg.support.files import write_text

# Candidates eliminated in the first rung are named in the table; a picture with all names could not be read.
_NAMED = 6


def write_page(path: Path, selection: ModelSelection) -> None:
    """Write the page of a finished selection."""
    source = resources.files("autoseg.selection").joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(source).render(
        selection=selection,
        picture=picture(selection),
        headings=confirmed_headings(selection),
        confirmed=confirmed_rows(selection),
        names=[(role, name, described(selection, name)) for role, name in confirmed_names(selection)],
        rungs=[(_rung_title(selection, number), rung_rows(selection, number)) for number in range(len(selection.rungs))],
        left_out=[(one.name, describe(one), one.left_out) for one in selection.candidates if one.left_out],
        overhead=show_time(selection.overhead_seconds / 3600),
        spent=show_time(selection.spent_hours),
    )
    write_text(path, page)


def confirmed_rows(selection: ModelSelection) -> list[tuple[str, ...]]:
    """Cells: roles, objective with interval, Dice with interval if that is another, all held-out cases, seconds of an image."""
    rows: list[tuple[str, ...]] = []
    for one in selection.confirmed:
        values = [_interval(one.value)] if selection.objective == "dice" else [_interval(one.value), _interval(one.dice)]
        values += [f"{one.value_all:.3f}", f"{one.image_seconds:.2g} s"]
        rows.append((role_text(one), *(["failed", *[""] * (len(values) - 1)] if one.failed else values)))
    return rows


def confirmed_headings(selection: ModelSelection) -> tuple[str, ...]:
    dice = () if selection.objective == "dice" else ("Dice, held back",)
    return "", f"{selection.objective}, held back", *dice, "all held-out cases", "an image"


def confirmed_names(selection: ModelSelection) -> list[tuple[str, str]]:
    """Role and candidate, with the reason of a failure."""
    names = []
    for one in selection.confirmed:
        recommended = ", recommended" if one.name == selection.recommended else ""
        failed = f" (failed: {one.failed})" if one.failed else ""
        names.append((f"{role_text(one)}{recommended}", f"{one.name}{failed}"))
    return names


def rung_rows(selection: ModelSelection, number: int) -> list[tuple[str, ...]]:
    """Cells of a rung: candidate, objective, steps, seconds, why it was eliminated."""
    rung = selection.rungs[number]
    stays = "confirmed in folds" if rung.level == selection.level else "goes on"
    return [
        (
            one.name, "–" if math.isnan(one.value) else f"{one.value:.3f}", str(one.steps), f"{one.seconds:.0f}",
            one.eliminated or stays,
        )
        for one in rung.tried
    ]  # fmt: skip


def described(selection: ModelSelection, name: str) -> str:
    """A confirmed candidate in words."""
    return describe(selection.candidate(name.partition(" (failed")[0]))


def _rung_title(selection: ModelSelection, number: int) -> str:
    rung = selection.rungs[number]
    if rung.kind == "frozen":
        return f"Frozen encoders: {len(rung.tried)} candidates, {rung.seconds:.0f} s each"
    place = selection.rounds.index(rung) + 1
    return f"Rung {place}: {len(rung.tried)} candidates, {rung.seconds:.0f} s each"


def _interval(value: Interval) -> str:
    return f"{value.mean:.3f} ({value.low:.3f} to {value.high:.3f})"


def picture(selection: ModelSelection) -> str:
    """The rungs as SVG: each candidate's objective against the seconds of its training; a cross where it was eliminated."""
    return draw_svg("rungs", partial(_draw_rungs, selection=selection), 4.6, 8.4)


def _draw_rungs(axes: Axes, selection: ModelSelection) -> None:
    paths, rungs = _paths(selection), len(selection.rounds)
    models = sorted({selection.candidate(name).model for name in paths})
    names = sorted(paths, key=lambda name: (-len(paths[name]), name))
    for name in reversed(names):
        model = models.index(selection.candidate(name).model)
        colour, marker = COLOURS[model % len(COLOURS)], MARKERS[model % len(MARKERS)]
        seconds, values = zip(*paths[name], strict=True)
        axes.plot(seconds, values, color=colour, linewidth=1.4, alpha=0.8, zorder=2)
        axes.scatter(seconds, values, color=colour, marker=marker, s=34, zorder=3)
        if len(paths[name]) < rungs:
            axes.scatter(seconds[-1:], values[-1:], color=TEXT_COLOUR, marker="x", s=60, linewidths=1, zorder=4)
    for index, label in enumerate(models):
        axes.scatter([], [], color=COLOURS[index % len(COLOURS)], marker=MARKERS[index % len(MARKERS)], label=label)
    axes.scatter([], [], color=TEXT_COLOUR, marker="x", linewidths=1, label="eliminated")
    _name_last(axes, [(name, paths[name][-1]) for name in names if len(paths[name]) == rungs][:_NAMED])
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set(xlabel="measured seconds of the training (log scale)", ylabel=f"{selection.objective}, deciding cases")
    axes.figure.legend(loc="outside right upper", fontsize=9)


def _paths(selection: ModelSelection) -> dict[str, list[tuple[float, float]]]:
    """Candidate -> (seconds, value) in each rung that it finished."""
    paths: dict[str, list[tuple[float, float]]] = {}
    for rung in selection.rounds:
        for one in rung.tried:
            if not math.isnan(one.value):
                paths.setdefault(one.name, []).append((max(one.seconds, 0.1), one.value))
    return paths


def _name_last(axes: Axes, ends: Sequence[tuple[str, tuple[float, float]]]) -> None:
    """Names of those that reached the last rung, below each other where their values are close."""
    height = 13
    low, high = axes.get_ylim()
    points_per_unit = 4.0 * 72 / max(high - low, 1e-9)
    free = math.inf
    for name, (seconds, value) in sorted(ends, key=lambda end: -end[1][1]):
        place = min(value * points_per_unit, free)
        free = place - height
        axes.annotate(
            name, (seconds, value), (-8, place - value * points_per_unit + 9), textcoords="offset points", fontsize=8,
            ha="right",
        )  # fmt: skip
