"""The page of a race, from what is stored: tables in Markdown and a picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.race.arms import ARMS, LEADERS, find, in_order
from benchmarks.race.jobs import Job, Record
from benchmarks.race.results import Comparison, Heat, Summary, comparisons, heats, summaries
from benchmarks.race.scorer import TOLERANCE

BEGIN, END = "<!-- race: begin -->", "<!-- race: end -->"
NOTHING = "Nothing has been measured yet."
_HEADINGS = (
    "arm", "Dice (95 % interval)", "HD95, px", f"NSD, {TOLERANCE:g} px", "folds x seeds", "steps x batch", "input, precision",
    "training, s", "preparing, s", "prediction of a case, s", "choices made on scored cases",
)  # fmt: skip
Found = Mapping[Heat, Mapping[str, list[Record]]]


def page(records: list[Record], picture: str = "") -> str:
    """picture: its path, "" for none."""
    found = heats(records)
    if not found:
        return NOTHING
    lines = [f"![Dice against minutes of training]({picture})", ""] if picture else []
    lines += _overview(found)
    for heat, arms in found.items():
        lines += [f"### {heat[0]}, {heat[1]:g} minutes, {heat[2]}", ""]
        lines += [_row(_HEADINGS), _row(["---"] * len(_HEADINGS))]
        lines += [_row(_cells(arm, taken)) for arm, taken in arms.items()]
        lines += ["", *_tests(comparisons(arms))]
    return "\n".join([*lines, *_machines(records), *_failed(records)]).rstrip()


def _overview(found: Found) -> list[str]:
    """Difference of the two leading arms, a row for each set."""
    cells: dict[tuple[str, str], dict[float, str]] = {}
    for (name, minutes, device), arms in found.items():
        both = {arm: arms[arm] for arm in LEADERS if arm in arms}
        for one in comparisons(both):
            cells.setdefault((name, device), {})[minutes] = f"{_difference(one.difference)}, p {_p(one.p)}"
    if not cells:
        return []
    budgets = sorted({minutes for row in cells.values() for minutes in row})
    first, second = (find(arm).title for arm in LEADERS)
    lines = [f"Dice of {first}, minus that of {second} (95 % interval; p of this pair alone):", ""]
    lines += [_row(["set", *(f"{minutes:g} minutes" for minutes in budgets)]), _row(["---"] * (1 + len(budgets)))]
    lines += [_row([", ".join(key), *(row.get(minutes, "") for minutes in budgets)]) for key, row in cells.items()]
    return [*lines, ""]


def _cells(arm: str, records: list[Record]) -> list[str]:
    values = summaries(records)
    folds, seeds = (len({record["job"][key] for record in records}) for key in ("fold", "seed"))
    expected = f"{folds} x {seeds}" if len(records) == folds * seeds else f"{len(records)} of {folds} x {seeds}"
    inputs = ", ".join(sorted({f"{'x'.join(map(str, record['input']))} {record['precision']}" for record in records}))
    per_case = sum(record["seconds"]["predict"] for record in records) / sum(len(record["cases"]) for record in records)
    return [
        f"{find(arm).title}{_models(records)}",
        _interval(values["dice"]),
        f"{values['hd95'].mean:.1f}",
        f"{values['nsd'].mean:.3f}",
        f"{expected} ({values['dice'].patients} patients)",
        f"{_range(record['steps'] for record in records)} x {_range(record['batch'] for record in records)}",
        inputs,
        f"{_mean_seconds(records, 'train'):.0f}",
        f"{_mean_seconds(records, 'prepare'):.0f}",
        f"{per_case:.2f}",
        "; ".join(sorted({seen(record["saw"]) for record in records})),
    ]


def seen(saw: str) -> str:
    """Short form of what a side says about its choices."""
    return "none" if saw.startswith("no choice") else saw


def _models(records: list[Record]) -> str:
    """How often each model was chosen, where there was a choice."""
    chosen = [record["model"] for record in records if record.get("tried")]
    counts = ", ".join(f"{chosen.count(model)} x {model}" for model in sorted(set(chosen)))
    return f" ({counts})" if counts else ""


def _mean_seconds(records: Iterable[Record], phase: str) -> float:
    return fmean(record["seconds"][phase] for record in records)


def _range(values: Iterable[int]) -> str:
    found = sorted(values)
    return f"{found[0]}" if found[0] == found[-1] else f"{found[0]}-{found[-1]}"


def _interval(value: Summary) -> str:
    return f"{value.mean:.3f} ({value.low:.3f} to {value.high:.3f})"


def _tests(found: list[Comparison]) -> list[str]:
    if not found:
        return []
    lines = ["| Dice of | against | difference (95 % interval) | patients | p after Holm |", "|---|---|---|---|---|"]
    for one in found:
        cells = find(one.first).title, find(one.second).title, _difference(one.difference), one.difference.patients, _p(one.p)
        lines.append(_row(cells))
    return [*lines, ""]


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _difference(value: Summary) -> str:
    return f"{value.mean:+.3f} ({value.low:+.3f} to {value.high:+.3f})"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _machines(records: list[Record]) -> list[str]:
    """Processors and versions of the scored jobs."""
    scored = [record for record in records if "cases" in record]
    machines = sorted({f"{one.get('processor', '?')}, {one.get('threads', 1)} thread" for one in _all(scored, "machine")})
    versions: dict[str, set[str]] = {}
    for one in _all(scored, "versions"):
        for name, version in one.items():
            versions.setdefault(name, set()).add(version)
    told = ", ".join(f"{name} {' and '.join(sorted(versions[name]))}" for name in sorted(versions))
    return [f"Machine: {'; '.join(machines)} a training. Versions: {told}.", ""]


def _all(records: list[Record], key: str) -> list[Mapping[str, Any]]:
    return [record[key] for record in records if key in record]


def _failed(records: list[Record]) -> list[str]:
    names = [Job(**record["job"]).name for record in records if "error" in record]
    return [f"Failed, and missing above: {', '.join(names)}.", ""] if names else []


def insert(text: str, results: str) -> str:
    """A page with what is between its two marks replaced. Raises ValueError if they are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{results}\n{END}{after}"


def plot(records: list[Record], path: Path) -> None:
    """Dice against minutes of training with 95 % intervals, a panel for each set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = heats(records)
    panels = sorted({(heat[0], heat[2]) for heat in found})
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    size = 4.2 * columns, 3.2 * rows + 1.0
    figure, axes = pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for panel, place in zip(panels, axes.flat, strict=False):
        _draw_panel(place, {heat: arms for heat, arms in found.items() if (heat[0], heat[2]) == panel})
        place.set_title(", ".join(panel), fontsize=10)
    for place in axes.flat[len(panels) :]:
        place.set_visible(False)
    handles = {label: line for place in axes.flat for line, label in zip(*place.get_legend_handles_labels(), strict=True)}
    # Those of varied arms are long.
    ncols = 2 if max(map(len, handles)) < 25 * columns else 1
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=ncols, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_panel(axes: Any, found: Found) -> None:
    minutes = sorted({heat[1] for heat in found})
    names = in_order({arm for arms in found.values() for arm in arms} | set(ARMS))
    for number, arm in enumerate(names):
        points = [(heat[1], summaries(arms[arm])["dice"]) for heat, arms in found.items() if arm in arms]
        if not points:
            continue
        # Side by side, so that the intervals can be told apart.
        places = [minute * 1.03 ** (number - len(names) / 2) for minute, _ in points]
        means = [value.mean for _, value in points]
        errors = [[value.mean - value.low for _, value in points], [value.high - value.mean for _, value in points]]
        axes.errorbar(places, means, errors, color=f"C{number}", marker="o", markersize=4, capsize=2, label=find(arm).title)
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(minutes, [f"{minute:g}" for minute in minutes])
    axes.set_xlim(minutes[0] / 1.5, minutes[-1] * 1.5)
    axes.set_xlabel("minutes of training", fontsize=9)
    axes.set_ylabel("Dice", fontsize=9)
