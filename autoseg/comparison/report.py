"""The comparison as one page that needs no network."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment

from autoseg.comparison.gallery import Row, Shown, encode_file, gallery
from autoseg.comparison.plots import plots
from autoseg.comparison.results import DatasetResults
from autoseg.comparison.tables import Table, ordered, percent, tables
from autoseg.metrics.rules import is_defined
from autoseg.schema.comparison import Comparison, DatasetComparison
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Decision
from autoseg.support.files import read_artefact, write_text
from autoseg.training.csv_logger import NAME as LOG

HEATS = "explanation"
_MOST_HEATS = 24


@dataclass(frozen=True, kw_only=True)
class Section:
    """What the page shows of one dataset."""

    name: str
    summary: str
    notes: tuple[str, ...]
    tables: tuple[Table, ...]
    plots: dict[str, str]
    gallery: tuple[Row, ...]
    heats: tuple[Shown, ...]
    decisions: tuple[Decision, ...]
    facts: tuple[tuple[str, str], ...]
    identities: tuple[tuple[str, str], ...]


def write_report(path: Path, comparison: Comparison, all_results: Sequence[DatasetResults]) -> None:
    """report.html: tables, pictures and what they rest on, in one file."""
    sections = [_section(dataset, one) for dataset, one in zip(comparison.datasets, all_results, strict=True)]
    alone = Comparison(datasets=comparison.datasets, across=comparison.across, rule="", definitions={}, versions={})
    across = next(tables(alone), None) if len(sections) > 1 else None
    source = resources.files("autoseg.comparison").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(source).render(sections=sections, across=across, comparison=comparison)
    write_text(path, page)


def summary(dataset: DatasetComparison) -> str:
    """One sentence: who leads, by how much, and whether that is more than chance."""
    best, *others = ordered(dataset)
    dice = best.overall["pooled.dice"].mean
    text = f"On {dataset.cases} held-out cases of {dataset.dataset}, {best.model} has the highest mDSC, {percent(dice)} %"
    if not others:
        return text + "; it is the only model."
    text += f", before {others[0].model} with {percent(others[0].overall['pooled.dice'].mean)} %"
    same = {test.second if test.first == best.model else test.first for test in dataset.tests
            if best.model in (test.first, test.second) and test.p_adjusted >= 0.05}  # fmt: skip
    if not dataset.tests:
        return text + "."
    if same:
        return f"{text}; paired tests over {dataset.units}s do not tell it apart from {', '.join(sorted(same))}."
    return f"{text}; paired tests over {dataset.units}s tell it apart from every other model."


def _section(dataset: DatasetComparison, dataset_results: DatasetResults) -> Section:
    own = Comparison(datasets=(dataset,), across={}, rule="")
    return Section(
        name=dataset.dataset,
        summary=summary(dataset),
        notes=dataset.notes,
        tables=tuple(tables(own)),
        plots=plots(dataset, dataset_results, _curves(dataset_results)),
        gallery=gallery(dataset_results),
        heats=_heats(dataset_results),
        decisions=_decisions(dataset_results),
        facts=_facts(dataset_results),
        identities=_identities(dataset_results),
    )


def _identities(dataset_results: DatasetResults) -> tuple[tuple[str, str], ...]:
    found = [("prepared data", next(iter(dataset_results.trained.values())).first.plan.content_hash)]
    for name, model in dataset_results.trained.items():
        for fold, run in model.folds.items():
            versions = ", ".join(f"{package} {version}" for package, version in run.record.versions.items())
            found.append((f"{name}, fold {fold}", f"{run.record.identity[:16]} ({versions})"))
    return tuple(found)


def _curves(dataset_results: DatasetResults) -> dict[str, list[dict[str, float]]]:
    found = {}
    for name, model in dataset_results.trained.items():
        path = model.first.folder / LOG
        if path.exists():
            with path.open(encoding="utf-8", newline="") as stream:
                found[name] = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(stream)]
    return found


def _heats(dataset_results: DatasetResults) -> tuple[Shown, ...]:
    """Pictures autoseg_explain left in the folds' folders."""
    found = []
    for name, model in dataset_results.trained.items():
        for run in model.folds.values():
            for path in sorted((run.folder / HEATS).glob("*.png"))[:3]:
                data = encode_file(path)
                if data:
                    found.append(Shown(f"{name}: {path.stem}", f"heat map of {name} on {path.stem}", data))
    return tuple(found[:_MOST_HEATS])


def _decisions(dataset_results: DatasetResults) -> tuple[Decision, ...]:
    """Of every model's plan, each once."""
    found: dict[str, Decision] = {}
    for model in dataset_results.trained.values():
        for decision in model.first.plan.decisions:
            own = not decision.subject.startswith("models.") or decision.subject.startswith(f"models.{model.model}.")
            if own:
                found.setdefault(decision.subject, decision)
    return tuple(found.values())


def _facts(dataset_results: DatasetResults) -> tuple[tuple[str, str], ...]:
    if not dataset_results.dataset.fingerprint.exists():
        return ()
    seen = read_artefact(dataset_results.dataset.fingerprint, Fingerprint)
    size = f"{seen.median_size[0]} x {seen.median_size[1]} pixels"
    facts = [("cases", str(len(seen.cases))), ("modality", f"{seen.modality}: {seen.evidence}"), ("median size", size)]
    for one in seen.classes:
        thick = f", {one.thickness:.1f} pixels thick" if is_defined(one.thickness) else ""
        facts.append((one.name, f"in {one.presence:.0%} of the cases, {one.pixel_share:.2%} of all pixels{thick}"))
    return (*facts, *((f"finding: {finding.kind}", finding.text) for finding in seen.findings))
