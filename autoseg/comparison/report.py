"""report.html: the comparison as one page that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment

from autoseg.comparison.cells import Table, ordered_by_dice
from autoseg.comparison.conditions import TITLE
from autoseg.comparison.gallery import GalleryRow, Picture, encode_file, examples, gallery
from autoseg.comparison.headline import summary
from autoseg.comparison.paper_files import other_notes
from autoseg.comparison.plots import leading, plots
from autoseg.comparison.results import DatasetResults
from autoseg.comparison.tables import tables
from autoseg.fingerprint.metric_advice import advise_metrics
from autoseg.metrics.rules import is_defined
from autoseg.prediction.overlay import legend_colours
from autoseg.schema.comparison import Comparison, DatasetComparison
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Decision
from autoseg.support.files import read_artefact, write_text
from autoseg.training.csv_logger import NAME as LOG
from autoseg.training.csv_logger import Row, read_rows

HEAT_MAPS = "explanation"
_MAX_HEAT_MAPS = 24


@dataclass(frozen=True, kw_only=True)
class Section:
    """Content of the page for one dataset. leading, examples: on the first screen, a plot (SVG) and cases of the best model.
    legend: class -> colour of its contours."""

    name: str
    summary: str
    conditions: dict[str, str]
    notes: tuple[str, ...]
    tables: tuple[Table, ...]
    leading: str
    examples: tuple[tuple[str, Picture], ...]
    plots: dict[str, str]
    gallery: tuple[GalleryRow, ...]
    legend: dict[str, str]
    heat_maps: tuple[Picture, ...]
    decisions: tuple[Decision, ...]
    facts: tuple[tuple[str, str], ...]
    identities: tuple[tuple[str, str], ...]


def write_report(path: Path, comparison: Comparison, all_results: Sequence[DatasetResults]) -> None:
    """Write the page: tables, plots, pictures, decisions, versions and hashes in one file."""
    sections = [_section(dataset, one) for dataset, one in zip(comparison.datasets, all_results, strict=True)]
    across_only = Comparison(datasets=comparison.datasets, across=comparison.across, rule="", definitions={}, versions={})
    across = next(tables(across_only), None) if len(sections) > 1 else None
    source = resources.files("autoseg.comparison").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(source).render(
        sections=sections, across=across, comparison=comparison, conditions_title=TITLE
    )
    write_text(path, page)


def _section(dataset: DatasetComparison, dataset_results: DatasetResults) -> Section:
    own = Comparison(datasets=(dataset,), across={}, rule="")
    return Section(
        name=dataset.dataset,
        summary=summary(dataset),
        conditions=dataset.conditions.lines,
        notes=tuple(other_notes(dataset)),
        tables=tuple(tables(own)),
        leading=leading(dataset),
        examples=examples(dataset_results, ordered_by_dice(dataset)[0].model),
        plots=plots(dataset, dataset_results, _curves(dataset_results)),
        gallery=gallery(dataset_results),
        legend=_legend(dataset_results),
        heat_maps=_heat_maps(dataset_results),
        decisions=_decisions(dataset_results),
        facts=_facts(dataset_results),
        identities=_identities(dataset_results),
    )


def _legend(dataset_results: DatasetResults) -> dict[str, str]:
    colours = legend_colours(dataset_results.spec.label_scheme())
    return {name: f"#{red:02x}{green:02x}{blue:02x}" for name, (red, green, blue) in colours.items()}


def _identities(dataset_results: DatasetResults) -> tuple[tuple[str, str], ...]:
    identities = [("preprocessed data", next(iter(dataset_results.trained.values())).first.plan.content_hash)]
    for name, model in dataset_results.trained.items():
        for fold, run in model.folds.items():
            versions = ", ".join(f"{package} {version}" for package, version in run.record.versions.items())
            identities.append((f"{name}, fold {fold}", f"{run.record.identity[:16]} ({versions})"))
    return tuple(identities)


def _curves(dataset_results: DatasetResults) -> dict[str, list[Row]]:
    curves = {}
    for name, model in dataset_results.trained.items():
        path = model.first.folder / LOG
        if path.exists():
            curves[name] = read_rows(path)
    return curves


def _heat_maps(dataset_results: DatasetResults) -> tuple[Picture, ...]:
    """Pictures of autoseg_explain in the folds' folders."""
    pictures = []
    for name, model in dataset_results.trained.items():
        for run in model.folds.values():
            for path in sorted((run.folder / HEAT_MAPS).glob("*.png"))[:3]:
                data = encode_file(path)
                if data:
                    pictures.append(Picture(f"{name}: {path.stem}", f"heat map of {name} on {path.stem}", data))
    return tuple(pictures[:_MAX_HEAT_MAPS])


def _decisions(dataset_results: DatasetResults) -> tuple[Decision, ...]:
    """The decisions of all models' plans, each once."""
    decisions: dict[str, Decision] = {}
    for model in dataset_results.trained.values():
        for decision in model.first.plan.decisions:
            own = not decision.subject.startswith("models.") or decision.subject.startswith(f"models.{model.model}.")
            if own:
                decisions.setdefault(decision.subject, decision)
    return tuple(decisions.values())


def _facts(dataset_results: DatasetResults) -> tuple[tuple[str, str], ...]:
    if not dataset_results.dataset.fingerprint.exists():
        return ()
    fingerprint = read_artefact(dataset_results.dataset.fingerprint, Fingerprint)
    size = f"{fingerprint.median_size[0]} x {fingerprint.median_size[1]} pixels"
    facts = [
        ("cases", str(len(fingerprint.cases))),
        ("modality", f"{fingerprint.modality}: {fingerprint.evidence}"),
        ("median size", size),
    ]
    for one in fingerprint.classes:
        thick = f", {one.thickness:.1f} pixels thick" if is_defined(one.thickness) else ""
        facts.append((one.name, f"in {one.presence:.0%} of the cases, {one.pixel_share:.2%} of all pixels{thick}"))
    for advice in advise_metrics(fingerprint):
        facts.append((f"metrics{f' for {advice.of}' * bool(advice.of)}", str(advice)))
    return (*facts, *((f"finding: {finding.kind}", finding.text) for finding in fingerprint.findings))
