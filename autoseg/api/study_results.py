"""A study's trainings and what comes after them: comparisons, tests on other datasets, zero-shot masks, heat maps, tables."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import autoseg
from autoseg.api.comparison import compare
from autoseg.api.evaluation import evaluate_external
from autoseg.api.explanation import explain
from autoseg.api.omnimodel import Omnimodel, mock_jobs, read_jobs
from autoseg.api.runner import run
from autoseg.api.study_plan import PlannedStudy, Setup, plan_facts
from autoseg.schema.comparison import DatasetComparison
from autoseg.schema.explanation import Explanation
from autoseg.schema.run import RunRecord
from autoseg.schema.runner import GridTable
from autoseg.schema.scores import Scores
from autoseg.schema.study import OMNIMODEL, StudyDataset, StudyRecord
from autoseg.study.deviations import Facts, deviations
from autoseg.study.numbers import numbers
from autoseg.study.scale import mark
from autoseg.study.worst_cases import worst_cases
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import read_artefact

if TYPE_CHECKING:
    from autoseg.api.runner import EngineName

logger = logging.getLogger(__name__)


def train_all(
    setup: Setup,
    planned: PlannedStudy,
    *,
    engine: EngineName,
    workers: int | None,
    gpus_per_run: int,
    address: str | None,
    slurm: Mapping[str, str] | None,
    retries: int,
    watch: Callable[[GridTable], None],
    handle_signals: bool,
) -> list[str]:
    """Train and score all that is left, seed by seed. Returns a line for each job that failed."""
    failed = []
    for seed in setup.study.seeds:
        together: dict[tuple[str, ...], list[str]] = {}
        for name, data in planned.datasets.items():
            models = tuple(setup.study.models_of(name, seed))
            if models:
                together.setdefault(models, []).append(data.name)
        for models, datasets in together.items():
            table = run(
                datasets, list(models), engine=engine, workers=workers, gpus_per_run=gpus_per_run, address=address,
                slurm=slurm, retries=retries, device=setup.options.device, watch=watch, handle_signals=handle_signals,
                root=setup.folders.root(seed),
            )  # fmt: skip
            failed += [
                f"{row.job.dataset}, {row.job.model}, fold {row.job.fold}, seed {seed}: {row.message or row.state}"
                for row in table.rows
                if row.state != "done" and not row.job.predicts
            ]
    return failed


def collect_results(
    setup: Setup, planned: PlannedStudy, failed: list[str], confirm: Callable[[str], bool] | None
) -> StudyRecord:
    """Everything after the trainings. What cannot be made is among `StudyRecord.failed`; the rest is made."""
    study, notes = setup.study, [*failed]
    _test_elsewhere(setup, planned, notes)
    comparisons = {
        (name, seed): compared
        for name in planned.datasets
        for seed in study.seeds
        if (compared := _compared(setup, planned, name, seed, notes)) is not None
    }
    readers = dict(_readers(setup, planned, comparisons, notes, confirm))
    heat_maps = list(_heat_maps(setup, planned, notes)) if setup.options.heat_maps else []
    facts = Facts(
        mark=mark(study, setup.options.scale),
        used={
            source.study.name: planned.datasets[source.study.name].short_name
            for source in setup.sources
            if source.used and planned.datasets[source.study.name].short_name.casefold() != source.study.name.casefold()
        },
        cases={name: _cases(planned, name) for name in planned.splits},
        random=setup.starts.random,
        variants=setup.starts.variants,
        plans=plan_facts(setup, planned),
        comparisons=comparisons.values(),
        failed=notes,
        mock=setup.options.mock_service and study.omnimodel is not None,
        left_out=setup.left_out,
    )
    return StudyRecord(
        study=study.name, title=study.title, source=study.source, scale=setup.options.scale, mark=facts.mark,
        datasets=tuple(one.name for one in study.datasets), families=dict(study.comparison.families),
        numbers=numbers(study, comparisons, readers, facts.variants), deviations=deviations(study, facts),
        used=dict(facts.used), splits={name: splits.id for name, splits in planned.splits.items()}, seeds=study.seeds,
        hours=_hours(setup, planned), failed=tuple(notes), heat_maps=tuple(heat_maps),
        versions={"autoseg": autoseg.__version__},
    )  # fmt: skip


def _cases(planned: PlannedStudy, name: str) -> int:
    return len({case for fold in planned.splits[name].folds for case in (*fold.train, *fold.validation)})


def _finished(setup: Setup, planned: PlannedStudy, name: str, seed: int) -> dict[str, list[Path]]:
    """Model -> the folders of its finished and scored folds."""
    dataset = planned.at(setup, name, seed)
    found: dict[str, list[Path]] = {}
    for model in setup.study.models_of(name, seed):
        for folder in dataset.runs([model]):
            if _is_finished(folder):
                found.setdefault(model, []).append(folder)
    return found


def _is_finished(folder: Path) -> bool:
    record = folder / "run.json"
    scored = (folder / "validation" / "scores.json").is_file() and record.is_file()
    return scored and read_artefact(record, RunRecord).status == "finished"


def _compared(setup: Setup, planned: PlannedStudy, name: str, seed: int, notes: list[str]) -> DatasetComparison | None:
    models = list(_finished(setup, planned, name, seed))
    if not models:
        return None
    strata = [*setup.study.comparison.strata, *_specialist(setup, name, models)]
    return _compare(setup, planned, name, seed, notes, models=models, strata=strata)


def _compare(
    setup: Setup, planned: PlannedStudy, name: str, seed: int, notes: list[str], *, models: list[str], strata: list[str],
    also: Mapping[str, Path] | None = None, output: Path | None = None,
) -> DatasetComparison | None:
    """The comparison of a dataset; runs that are not equal are compared all the same, and the deviations say so."""
    options = {
        "models": models, "stratify_by": strata, "share": setup.study.comparison.share, "also": also, "output": output,
        "root": setup.folders.root(seed),
    }  # fmt: skip
    dataset = planned.datasets[name].name
    try:
        try:
            comparison = compare(dataset, **options)  # type: ignore[arg-type]
        except SeveralProblems:
            comparison = compare(dataset, allow_unequal=True, **options)  # type: ignore[arg-type]
    except AutosegError as error:
        notes.append(f"comparison of {name}, seed {seed}: {error.problem}")
        return None
    return comparison.datasets[0]


def _specialist(setup: Setup, name: str, models: list[str]) -> list[str]:
    """The model whose Dice decides the easy and hard cases, if it is trained."""
    return [one.specialist for one in setup.study.datasets if one.name == name and one.specialist in models]


def _test_elsewhere(setup: Setup, planned: PlannedStudy, notes: list[str]) -> None:
    """The tests on other datasets, which later comparisons read."""
    for external in setup.study.comparison.external:
        if not {external.dataset, external.other} <= planned.datasets.keys():
            continue
        for seed in setup.study.seeds:
            models = list(_finished(setup, planned, external.dataset, seed))
            try:
                if models:
                    evaluate_external(
                        planned.datasets[external.dataset].name, planned.datasets[external.other].name, models=models,
                        labels=external.labels or None, device=setup.options.device, root=setup.folders.root(seed),
                    )  # fmt: skip
            except AutosegError as error:
                notes.append(f"{external.dataset} on {external.other}, seed {seed}: {error.problem}")


def _readers(
    setup: Setup,
    planned: PlannedStudy,
    comparisons: Mapping[tuple[str, int], DatasetComparison],
    notes: list[str],
    confirm: Callable[[str], bool] | None,
) -> Iterator[tuple[tuple[str, int], DatasetComparison]]:
    """The comparisons with the zero-shot model's masks of the easy and hard cases; without such a model those there are."""
    seed = setup.study.seeds[0]
    for dataset in setup.study.datasets:
        compared = comparisons.get((dataset.name, seed))
        if compared is None:
            continue
        if setup.study.omnimodel is None or not dataset.specialist:
            yield (dataset.name, seed), compared
            continue
        try:
            folder = _ask(setup, planned, dataset, compared, notes=notes, confirm=confirm)
        except AutosegError as error:
            notes.append(f"zero-shot masks of {dataset.name}: {error.problem}")
            yield (dataset.name, seed), compared
            continue
        models = [one.model for one in compared.models]
        also = {OMNIMODEL: folder} if folder is not None else None
        read = _compare(
            setup, planned, dataset.name, seed, notes, models=models, strata=[dataset.specialist], also=also,
            output=setup.folders.folder / "comparisons" / dataset.name,
        )  # fmt: skip
        yield (dataset.name, seed), read or compared


def _ask(
    setup: Setup, planned: PlannedStudy, dataset: StudyDataset, compared: DatasetComparison, *, notes: list[str],
    confirm: Callable[[str], bool] | None,
) -> Path | None:
    """The folder with scored zero-shot masks of the first seed's easy and hard cases; None if there is none."""
    from autoseg.evaluation.evaluate import evaluate_folders
    from autoseg.io.raw_dataset import RawDataset
    from autoseg.prediction.inputs import find_jobs

    omnimodel = setup.study.omnimodel
    assert omnimodel is not None
    data = planned.at(setup, dataset.name, setup.study.seeds[0])
    raw = RawDataset.open(data)
    strata = [one for one in compared.strata if one.by == dataset.specialist]
    cases = {case for one in strata for stratum in one.strata for case in stratum.cases}
    images = [path for case in raw.cases if case.name in cases for path in case.images]
    folder = setup.folders.folder / ("mock" if setup.options.mock_service else OMNIMODEL) / dataset.name
    jobs = find_jobs(images, len(raw.spec.channel_names), False, folder, "keep", "nii")
    asked = Omnimodel(
        reader=omnimodel.reader, model=omnimodel.model, send_images_to=setup.options.send_images_to,
        threshold=omnimodel.threshold,
    )  # fmt: skip
    if setup.options.mock_service:
        report = mock_jobs(jobs, folder, data.name, asked, prompts=dataset.prompts, root=data.root)
    else:
        report = read_jobs(
            jobs, folder, data.name, asked, confirm, device=setup.options.device, root=data.root, prompts=dataset.prompts
        )
    notes += [f"zero-shot mask of {dataset.name}, {case}: {why}" for case, why in report.failed.items()]
    answered = {case.case for case in report.record.cases} & cases
    if not answered:
        return None
    evaluate_folders(folder, raw.references, raw.spec, cases=answered)
    return folder


def _heat_maps(setup: Setup, planned: PlannedStudy, notes: list[str]) -> Iterator[str]:
    """Draw heat maps of the worst cases of each fold, of the first seed; yields their folders. What is drawn already stays."""
    number, seed = setup.study.comparison.worst_cases, setup.study.seeds[0]
    for name in planned.datasets if number else ():
        dataset = planned.at(setup, name, seed)
        for model, folders in _finished(setup, planned, name, seed).items():
            for folder in folders:
                cases = worst_cases(read_artefact(folder / "validation" / "scores.json", Scores), number)
                fold = int(folder.name.removeprefix("fold_"))
                target = folder / "explanation"
                try:
                    if cases and not _is_drawn(target, folder, cases):
                        # Where the reference is: a network that finds nothing has no predicted region.
                        explain(
                            dataset.name, model, fold, cases, region="reference", device=setup.options.device,
                            root=dataset.root,
                        )  # fmt: skip
                except AutosegError as error:
                    notes.append(f"heat maps of {name}, {model}, fold {fold}: {error.problem}")
                    continue
                if cases:
                    yield target.relative_to(setup.folders.folder).as_posix()


def _is_drawn(target: Path, folder: Path, cases: list[str]) -> bool:
    """Whether these cases were explained with the networks there are."""
    record = target / "explanation.json"
    if not record.is_file():
        return False
    drawn = read_artefact(record, Explanation)
    explained = {one.case for one in drawn.heatmaps} | {name.partition(",")[0] for name in drawn.skipped}
    return drawn.identity == read_artefact(folder / "run.json", RunRecord).identity and set(cases) <= explained


def _hours(setup: Setup, planned: PlannedStudy) -> float:
    """Of all finished trainings, from their records."""
    return sum(
        read_artefact(folder / "run.json", RunRecord).seconds / 3600
        for name in planned.datasets
        for seed in setup.study.seeds
        for folders in _finished(setup, planned, name, seed).values()
        for folder in folders
    )
