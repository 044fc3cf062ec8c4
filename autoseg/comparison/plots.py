"""Pictures of a comparison as SVG that takes the page's own colour for lines and text, so that it fits light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from autoseg.comparison.cost import pareto
from autoseg.comparison.results import DatasetResults
from autoseg.comparison.tables import ordered
from autoseg.metrics.rules import is_defined
from autoseg.schema.comparison import DatasetComparison, Ranking

# Okabe and Ito's palette, told apart with any colour vision and on light and dark ground; markers tell apart as well.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c8c00")
MARKERS = "osD^vPX*"
_INK = "#010203"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}
Axes = Any


def plots(
    dataset: DatasetComparison, dataset_results: DatasetResults, curves: Mapping[str, Sequence[Mapping[str, float]]]
) -> dict[str, str]:
    """Title -> SVG, of what there is. curves: model -> rows of its first fold's metrics.csv."""
    found = {
        f"Dice of images, {name}": _draw(
            f"box{place}", partial(_boxes, dataset=dataset, dataset_results=dataset_results, name=name)
        )
        for place, name in enumerate(dataset.classes)
    }
    found["mDSC of each fold"] = _draw("folds", lambda axes: _folds(axes, dataset))
    if dataset.ranking is not None and len(dataset.models) > 2:
        found["Mean ranks and critical difference"] = _draw(
            "ranks", partial(_critical, dataset=dataset, ranking=dataset.ranking), height=1.0 + 0.4 * len(dataset.models)
        )
    if any(result.cost for result in dataset.models):
        found["Dice against cost"] = _draw("pareto", lambda axes: _pareto(axes, dataset))
    if curves:
        found["Learning curves, first fold"] = _draw("curves", lambda axes: _curves(axes, dataset, curves))
    if dataset.risk_coverage:
        found["Risk and coverage"] = _draw("risk", lambda axes: _risk(axes, dataset))
    return found


def _draw(name: str, draw: Callable[[Axes], None], height: float = 3.2) -> str:
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(6.4, height), layout="constrained")
        draw(figure.subplots())
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    # Several pictures stand in one page: their names must not meet.
    svg = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\1{name}-", svg)
    return re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" xmlns:xlink="http://www.w3.org/1999/xlink">', svg, count=1
    )


def _names(dataset: DatasetComparison) -> list[str]:
    return [result.model for result in ordered(dataset)]


def _look(dataset: DatasetComparison, model: str) -> tuple[str, str]:
    place = sorted(result.model for result in dataset.models).index(model)
    return COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]


def _boxes(axes: Axes, dataset: DatasetComparison, dataset_results: DatasetResults, name: str) -> None:
    names = _names(dataset)
    values = [[case.classes[name].dice for case in dataset_results.models[model].cases.values()] for model in names]
    defined = [[value for value in several if is_defined(value)] for several in values]
    boxes = axes.boxplot(defined, patch_artist=True, orientation="horizontal", tick_labels=names, widths=0.6)
    for box, model in zip(boxes["boxes"], names, strict=True):
        box.set(facecolor=_look(dataset, model)[0], edgecolor=_INK, alpha=0.75)
    for part in ("whiskers", "caps", "medians"):
        for line in boxes[part]:
            line.set_color(_INK)
    for points in boxes["fliers"]:
        points.set(markeredgecolor=_INK, markersize=3)
    axes.invert_yaxis()
    axes.set_xlabel("Dice")


def _folds(axes: Axes, dataset: DatasetComparison) -> None:
    names = _names(dataset)
    for place, result in enumerate(ordered(dataset)):
        colour, marker = _look(dataset, result.model)
        estimate = result.overall["pooled.dice"]
        axes.scatter(list(estimate.folds.values()), [place] * len(estimate.folds), color=colour, marker=marker, s=36)
        axes.plot([estimate.mean] * 2, [place - 0.3, place + 0.3], color=_INK, linewidth=2)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("mDSC (bar: mean)")


def _critical(axes: Axes, dataset: DatasetComparison, ranking: Ranking) -> None:
    """A row a model, with half the critical difference to either side: names never meet, and bars overlap just where ranks
    are less than the difference apart."""
    rows = sorted(ranking.mean_ranks.items(), key=lambda pair: pair[1])
    for place, (name, value) in enumerate(rows):
        colour, marker = _look(dataset, name)
        half = ranking.critical_difference / 2
        axes.plot([value - half, value + half], [place, place], color=colour, linewidth=3, alpha=0.5, solid_capstyle="butt")
        axes.plot(value, place, marker=marker, color=colour, markersize=7)
        axes.annotate(f"{value:.2f}", (value, place), (0, 7), textcoords="offset points", ha="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.8)
    axes.set_xlabel(f"mean rank, 1 is best; bars ({ranking.critical_difference:.2f}) apart: differ")


def _pareto(axes: Axes, dataset: DatasetComparison) -> None:
    known = [result for result in dataset.models if result.cost is not None and is_defined(result.overall["pooled.dice"].mean)]
    costs = {result.model: result.cost.flops / 1e9 for result in known if result.cost is not None}
    scores = {result.model: result.overall["pooled.dice"].mean for result in known}
    front = pareto(costs, scores)
    axes.plot([costs[name] for name in front], [scores[name] for name in front], color=_INK, linewidth=1, linestyle="--")
    for name in costs:
        colour, marker = _look(dataset, name)
        axes.scatter(costs[name], scores[name], color=colour, marker=marker, s=60)
        axes.annotate(name, (costs[name], scores[name]), (6, 5), textcoords="offset points", fontsize=9)
    axes.set_xscale("log")
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(x=0.2, y=0.15)
    axes.set(xlabel="GFLOPs of one image's forward pass (dashed: nothing is better for less)", ylabel="mDSC")


def _curves(axes: Axes, dataset: DatasetComparison, curves: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    for model, rows in curves.items():
        known = [row for row in rows if "dice" in row]
        colour, marker = _look(dataset, model)
        axes.plot(
            [row["epoch"] for row in known], [row["dice"] for row in known], color=colour, marker=marker, ms=4, label=model
        )
    axes.set(xlabel="epoch", ylabel="validation Dice")
    axes.legend(fontsize=9)


def _risk(axes: Axes, dataset: DatasetComparison) -> None:
    for one in dataset.risk_coverage:
        colour, marker = _look(dataset, one.model)
        axes.plot(one.coverage, one.risk, color=colour, marker=marker, ms=3, label=f"{one.model}, AURC {one.aurc:.3f}")
    axes.set(xlabel="share of cases kept, the most confident first", ylabel="risk (1 - Dice)")
    axes.legend(fontsize=9)
