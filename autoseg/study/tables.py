"""The study's tables as Markdown and CSV: our number, the published one, and the difference."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from autoseg.comparison.cells import Table
from autoseg.metrics.rules import is_defined
from autoseg.schema.study import StudyNumber, StudyRecord
from autoseg.study.numbers import family_means
from autoseg.support.files import write_artefact, write_text

_ABSENT = "–"
_CSV = ("dataset", "model", "title", "metric", "class", "stratum", "unit", "ours", "deviation", "values", "published",
        "published_deviation", "difference", "scale")  # fmt: skip


def study_tables(record: StudyRecord) -> Iterator[Table]:
    """A table for each metric, class and stratum, in the order of the study; then the means of the families."""
    kinds = dict.fromkeys((one.metric, one.of, one.stratum, one.unit) for one in record.numbers)
    for metric, of, stratum, unit in kinds:
        found = [one for one in record.numbers if (one.metric, one.of, one.stratum, one.unit) == (metric, of, stratum, unit)]
        what = " ".join(filter(None, (metric, f"of {of}" if of else "", f"on the {stratum} cases" if stratum else "")))
        deviation = "images" if stratum else "folds" + (" and seeds" if len(record.seeds) > 1 else "")
        unit_text = "in %" if unit == "percent" else f"in {unit}"
        compared = ", published, and ours minus published" if _has_published(found) else "; nothing is published"
        note = f"{unit_text}: ours ± deviation over {deviation}{compared}"
        yield _wide(record, what, note, found)
    rows = [
        (family, _shown(record, dataset), _number(ours), _number(published), _difference(ours, published))
        for family, dataset, ours, published in family_means(record)
    ]
    if rows:
        yield Table(
            title="mDSC of families",
            note=_marked("in %: mean over the models of a family that have the number", record.mark),
            headings=("family", "dataset", "ours", "published", "difference"),
            rows=tuple(rows),
        )


def write_results(folder: Path, record: StudyRecord) -> None:
    """study.json, study.md (tables and deviations) and study.csv."""
    write_artefact(folder / "study.json", record)
    write_text(folder / "study.csv", to_csv(record))
    write_text(folder / "study.md", to_markdown(record))


def to_csv(record: StudyRecord) -> str:
    """One row for each number."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_CSV)
    for one in record.numbers:
        values = [f"{value:.4f}" if is_defined(value) else "" for value in (one.ours, one.deviation)]
        published = [f"{value:g}" if is_defined(value) else "" for value in (one.published, one.published_deviation)]
        difference = f"{one.difference:.4f}" if is_defined(one.difference) else ""
        about = [one.dataset, one.model, one.title, one.metric, one.of, one.stratum, one.unit]
        writer.writerow([*about, *values, one.values, *published, difference, record.scale])
    return stream.getvalue()


def to_markdown(record: StudyRecord) -> str:
    """All tables, the ids of the folds, the deviations and the worst cases' heat maps."""
    parts = [f"# {record.title}", f"{record.source}, repeated with autoseg {record.versions.get('autoseg', '')}."]
    parts += [f"**{record.mark}**"] if record.mark else []
    for table in study_tables(record):
        parts += [f"## {table.title}", table.note, _markdown(table.headings, table.rows)]
    parts += ["## Folds", _list(f"{dataset}: {folds}" for dataset, folds in record.splits.items())]
    parts += ["## Deviations from the protocol", _list(record.deviations) or "None known."]
    parts += ["## Without results", _list(record.failed)] if record.failed else []
    parts += ["## Heat maps of the worst cases", _list(record.heat_maps)] if record.heat_maps else []
    parts.append(f"Trainings took {record.hours:.1f} hours together.")
    return "\n\n".join(parts) + "\n"


def _wide(record: StudyRecord, title: str, note: str, found: Sequence[StudyNumber]) -> Table:
    """Models as rows, in the order of the study's table; three columns for each dataset, or one if nothing is published."""
    datasets = [name for name in record.datasets if any(number.dataset == name for number in found)]
    cells = {(one.model, one.dataset): one for one in found}
    titles = dict.fromkeys((one.model, one.title) for one in found)
    headings = ["model"]
    width = 3 if _has_published(found) else 1
    for dataset in datasets:
        headings += [_shown(record, dataset), "published", "difference"][:width]
    rows = []
    for model, name in titles:
        row = [name]
        for dataset in datasets:
            row += _cells(cells.get((model, dataset)))[:width]
        rows.append(tuple(row))
    return Table(title=title, note=_marked(note, record.mark), headings=tuple(headings), rows=tuple(rows))


def _cells(one: StudyNumber | None) -> list[str]:
    if one is None:
        return ["", "", ""]
    ours, published = _number(one.ours, one.deviation), _number(one.published, one.published_deviation)
    return [ours, published, _difference(one.ours, one.published)]


def _has_published(found: Sequence[StudyNumber]) -> bool:
    return any(is_defined(one.published) for one in found)


def _shown(record: StudyRecord, dataset: str) -> str:
    """The dataset's name, and that of the one in its place."""
    return f"{record.used[dataset]} for {dataset}" if dataset in record.used else dataset


def _marked(note: str, mark: str) -> str:
    return f"{note}. {mark}" if mark else note


def _number(mean: float, deviation: float = float("nan")) -> str:
    if not is_defined(mean):
        return _ABSENT
    return f"{mean:.1f} ± {deviation:.1f}" if is_defined(deviation) else f"{mean:.1f}"


def _difference(ours: float, published: float) -> str:
    return f"{ours - published:+.1f}" if is_defined(ours) and is_defined(published) else ""


def _markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
