"""Plots of a comparison as SVG. Lines and text have the colour of the page, so they fit light and dark schemes."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from autoseg.comparison.cells import ordered_by_dice
from autoseg.comparison.cost import pareto
from autoseg.comparison.results import DatasetResults
from autoseg.metrics.rules import is_defined
from autoseg.schema.comparison import HEADLINE, DatasetComparison, Ranking

# Okabe and Ito's palette, with brown for its yellow, which is pale on white: distinguishable with any colour vision, on light
# and on dark ground. Markers differ as well.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6238")
MARKERS = "osD^vPX*"
TEXT_COLOUR = "#010203"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": TEXT_COLOUR,
    "axes.edgecolor": TEXT_COLOUR,
    "axes.labelcolor": TEXT_COLOUR,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": TEXT_COLOUR,
    "ytick.color": TEXT_COLOUR,
    "legend.frameon": False,
}
Axes = Any


def plots(
    dataset: DatasetComparison, dataset_results: DatasetResults, curves: Mapping[str, Sequence[Mapping[str, float]]]
) -> dict[str, str]:
    """Title -> SVG of each plot that has data. curves: model -> rows of its first fold's metrics.csv."""
    figures = {
        f"Dice of images, {name}": draw_svg(
            f"box{index}", partial(_boxes, dataset=dataset, dataset_results=dataset_results, name=name)
        )
        for index, name in enumerate(dataset.classes)
    }
    figures["mDSC of each fold"] = draw_svg("folds", lambda axes: _folds(axes, dataset))
    if dataset.ranking is not None and len(dataset.models) > 2:
        figures["Mean ranks and critical difference"] = draw_svg(
            "ranks", partial(_critical, dataset=dataset, ranking=dataset.ranking), height=1.0 + 0.4 * len(dataset.models)
        )
    if any(result.cost for result in dataset.models):
        figures["mDSC against cost"] = draw_svg("pareto", lambda axes: _pareto(axes, dataset))
    if curves:
        figures["Learning curves, first fold"] = draw_svg("curves", lambda axes: _curves(axes, dataset, curves))
    if dataset.risk_coverage:
        figures["Risk and coverage"] = draw_svg("risk", lambda axes: _risk(axes, dataset))
    if any(result.calibrations for result in dataset.models):
        figures["Reliability near the foreground"] = draw_svg(
            "reliability", partial(_reliability, dataset=dataset, dataset_results=dataset_results)
        )
    return figures


def leading(dataset: DatasetComparison) -> str:
    """SVG: the mDSC of every model with its 95 % interval, the best on top."""
    return draw_svg("leading", lambda axes: _leading(axes, dataset), height=0.9 + 0.32 * len(dataset.models), width=4.6)


def draw_svg(name: str, draw: Callable[[Axes], None], height: float = 3.2, width: float = 6.4) -> str:
    """The SVG of a plot, whose ids begin with its name, in the colour of the page. height, width: in inches."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :].replace(TEXT_COLOUR, "currentColor")
    # One page has several plots: prefix their ids, so that they are unique.
    svg = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\1{name}-", svg)
    return re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" xmlns:xlink="http://www.w3.org/1999/xlink">', svg, count=1
    )


def _names(dataset: DatasetComparison) -> list[str]:
    return [result.model for result in ordered_by_dice(dataset)]


def _colour_and_marker(dataset: DatasetComparison, model: str) -> tuple[str, str]:
    index = sorted(result.model for result in dataset.models).index(model)
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def _boxes(axes: Axes, dataset: DatasetComparison, dataset_results: DatasetResults, name: str) -> None:
    names = _names(dataset)
    values = [[case.classes[name].dice for case in dataset_results.models[model].cases.values()] for model in names]
    defined = [[value for value in several if is_defined(value)] for several in values]
    boxes = axes.boxplot(defined, patch_artist=True, orientation="horizontal", tick_labels=names, widths=0.6)
    for box, model in zip(boxes["boxes"], names, strict=True):
        box.set(facecolor=_colour_and_marker(dataset, model)[0], edgecolor=TEXT_COLOUR, alpha=0.75)
    for part in ("whiskers", "caps", "medians"):
        for line in boxes[part]:
            line.set_color(TEXT_COLOUR)
    for points in boxes["fliers"]:
        points.set(markeredgecolor=TEXT_COLOUR, markersize=3)
    axes.invert_yaxis()
    axes.set_xlabel("Dice")


def _folds(axes: Axes, dataset: DatasetComparison) -> None:
    names = _names(dataset)
    for index, result in enumerate(ordered_by_dice(dataset)):
        colour, marker = _colour_and_marker(dataset, result.model)
        estimate = result.overall[HEADLINE]
        axes.scatter(list(estimate.folds.values()), [index] * len(estimate.folds), color=colour, marker=marker, s=36)
        axes.plot([estimate.mean] * 2, [index - 0.3, index + 0.3], color=TEXT_COLOUR, linewidth=2)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("mDSC (bar: mean)")


def _critical(axes: Axes, dataset: DatasetComparison, ranking: Ranking) -> None:
    """One row per model, with half the critical difference to either side: bars overlap if the ranks differ by less than the
    critical difference."""
    rows = sorted(ranking.mean_ranks.items(), key=lambda pair: pair[1])
    for index, (name, value) in enumerate(rows):
        colour, marker = _colour_and_marker(dataset, name)
        half = ranking.critical_difference / 2
        axes.plot([value - half, value + half], [index, index], color=colour, linewidth=3, alpha=0.5, solid_capstyle="butt")
        axes.plot(value, index, marker=marker, color=colour, markersize=7)
        axes.annotate(f"{value:.2f}", (value, index), (0, 7), textcoords="offset points", ha="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.8)
    axes.set_xlabel(f"mean rank, 1 is best; models differ if their bars ({ranking.critical_difference:.2f}) do not overlap")


def _pareto(axes: Axes, dataset: DatasetComparison) -> None:
    defined = [
        result for result in dataset.models if result.cost is not None and is_defined(result.overall[HEADLINE].mean)
    ]
    costs = {result.model: result.cost.flops / 1e9 for result in defined if result.cost is not None}
    scores = {result.model: result.overall[HEADLINE].mean for result in defined}
    front = pareto(costs, scores)
    axes.plot(
        [costs[name] for name in front], [scores[name] for name in front], color=TEXT_COLOUR, linewidth=1, linestyle="--"
    )
    for name in costs:
        colour, marker = _colour_and_marker(dataset, name)
        axes.scatter(costs[name], scores[name], color=colour, marker=marker, s=60)
        axes.annotate(name, (costs[name], scores[name]), (6, 5), textcoords="offset points", fontsize=9)
    axes.set_xscale("log")
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(x=0.2, y=0.15)
    axes.set(xlabel="GFLOPs of one image's forward pass (dashed: Pareto front)", ylabel="mDSC")


def _curves(axes: Axes, dataset: DatasetComparison, curves: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    # Runs of older releases have no micro average.
    every = all(any("micro_dice" in row for row in rows) for rows in curves.values())
    column, title = ("micro_dice", "mDSC") if every else ("class_mean_dice", "class mean of Dice")
    for model, rows in curves.items():
        defined = [row for row in rows if column in row]
        colour, marker = _colour_and_marker(dataset, model)
        axes.plot(
            [row["epoch"] for row in defined], [row[column] for row in defined], color=colour, marker=marker, ms=4, label=model
        )
    axes.set(xlabel="epoch", ylabel=f"validation {title}")
    axes.legend(fontsize=9)


def _risk(axes: Axes, dataset: DatasetComparison) -> None:
    for one in dataset.risk_coverage:
        colour, marker = _colour_and_marker(dataset, one.model)
        axes.plot(one.coverage, one.risk, color=colour, marker=marker, ms=3, label=f"{one.model}, AURC {one.aurc:.3f}")
    axes.set(xlabel="coverage: fraction of cases, the most confident first", ylabel="risk (1 - Dice)")
    axes.legend(fontsize=9)


def _leading(axes: Axes, dataset: DatasetComparison) -> None:
    """Means with their intervals; where no model has one (one group in each fold), with the deviation over folds."""
    results = ordered_by_dice(dataset)
    intervals = {one.model: one.intervals[HEADLINE] for one in results if HEADLINE in one.intervals}
    known = any(is_defined(one.low) for one in intervals.values())
    for place, result in enumerate(results):
        estimate = result.overall[HEADLINE]
        value, low, high = estimate.mean, estimate.mean - estimate.std, estimate.mean + estimate.std
        if known:
            one = intervals.get(result.model)
            low, high = (one.low, one.high) if one is not None else (math.nan, math.nan)
        colour, marker = _colour_and_marker(dataset, result.model)
        value, right = 100 * value, 100 * value
        axes.plot(value, place, color=colour, marker=marker, ms=8)
        if is_defined(low):
            right = 100 * high
            axes.plot([100 * low, right], [place, place], color=colour, linewidth=2)
        axes.annotate(f"{value:.1f}", (right, place), xytext=(7, 0), textcoords="offset points", va="center", fontsize=10)
    axes.set_yticks(range(len(results)), [result.model for result in results])
    axes.set_ylim(len(results) - 0.5, -0.5)
    axes.margins(x=0.12)
    axes.set(xlabel="mDSC in %, 95 % interval" if known else "mDSC in %, fold deviation")


def _reliability(axes: Axes, dataset: DatasetComparison, dataset_results: DatasetResults) -> None:
    """Accuracy against confidence in bins, over all folds; the diagonal is a network that is right as often as it says."""
    axes.plot([0, 1], [0, 1], color=TEXT_COLOUR, linewidth=1, linestyle="--")
    for result in ordered_by_dice(dataset):
        scores = dataset_results.models[result.model].scores.values()
        folds = [one.calibration for one in scores if one.calibration is not None and one.calibration.near_share]
        bins = [
            np.array([[one.near_confidence, one.near_accuracy], [one.near_share] * 2], float) for one in folds
        ]  # (values or weights, confidence or accuracy, bins)
        if not bins:
            continue
        weights = sum(np.nan_to_num(one[1]) for one in bins)
        sums = sum(np.nan_to_num(one[0] * one[1]) for one in bins)
        used = weights[0] > 0
        colour, marker = _colour_and_marker(dataset, result.model)
        confidence, accuracy = sums[:, used] / weights[:, used]
        axes.plot(confidence, accuracy, color=colour, marker=marker, ms=4, label=result.model)
    axes.set(xlabel="confidence", ylabel="fraction that is right")
    axes.legend(fontsize=9)
