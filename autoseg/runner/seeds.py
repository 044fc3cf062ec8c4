"""Trainings with other seeds than the plan's own, as trials with a plan of their own.

    results/<dataset>/<model>-seed1/plan.json, splits.json, fold_0, ...
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from autoseg.planning.overrides import apply_overrides, with_decision
from autoseg.schema.plan import Decision, Plan, Splits
from autoseg.schema.run import RateSearch
from autoseg.schema.runner import Job
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact, write_artefact
from autoseg.support.workspace import Dataset, seed_folder_name

_SEED = "training.seed"
_SEARCH = "learning_rate.json"
_STARTS = (None, "auto", "study", "none")


def check_seeds(seeds: Sequence[int], settings: Mapping[str, str], pretrained: object) -> None:
    """Raises AutosegError for seeds that are no different numbers from 0 on, and for a seed in the settings or a file of
    weights together with them, which the plan of a seed cannot name.
    """
    if seeds and pretrained not in _STARTS:
        raise AutosegError(f"seeds cannot start from {pretrained}", "leave out --seeds, or use weights of autoseg_weights")
    if len(set(seeds)) < len(seeds) or any(not 0 <= seed < 2**32 for seed in seeds):
        raise AutosegError(f"seeds cannot be {', '.join(map(str, seeds))}", "give different numbers from 0 on, such as 0,1,2")
    if seeds and _SEED in settings:
        raise AutosegError(f"{_SEED} is set, and seeds are given", "leave out one of the two")


def other_seeds(dataset: Dataset, seeds: Iterable[int]) -> list[int]:
    """Without that of the dataset's plan, whose trainings are the usual ones."""
    own = read_artefact(dataset.plan, Plan, f"autoseg_plan_and_preprocess {dataset.number}").training.seed
    return [seed for seed in seeds if seed != own]


def seed_jobs(
    dataset: Dataset, jobs: Sequence[Job], seeds: Sequence[int], settings: Mapping[str, str], pretrained: str | None
) -> list[Job]:
    """Write the plan and the folds of each seed; returns the jobs of these. jobs: of the plan's own seed, which are done: a
    learning rate that they have searched counts for all seeds. pretrained: "auto", "study", "none" or None for the plan's.
    """
    remedy = f"autoseg_plan_and_preprocess {dataset.number}"
    plan = apply_overrides(read_artefact(dataset.plan, Plan, remedy), settings)
    splits = read_artefact(dataset.splits, Splits, remedy)
    found = []
    for model in dict.fromkeys(job.model for job in jobs):
        of_model = _plan_of_model(dataset, plan, model, pretrained)
        for seed in seeds:
            trial = seed_folder_name(model, seed)
            folder = dataset.trial(trial)
            own = with_decision(
                replace(of_model, training=replace(of_model.training, seed=seed)),
                Decision(_SEED, str(seed), f"another seed than {plan.training.seed}, for the spread over seeds"),
            )
            write_artefact(folder / "plan.json", own)
            write_artefact(folder / "splits.json", splits)
            found += [Job(dataset.name, model, job.fold, trial) for job in jobs if job.model == model]
    return found


def _plan_of_model(dataset: Dataset, plan: Plan, model: str, pretrained: str | None) -> Plan:
    """The plan with this model only, and the rate of its search instead of the search."""
    planned = plan.models[model]
    if pretrained is not None:
        planned = replace(planned, pretrained=pretrained)  # type: ignore[arg-type]
    training, path = plan.training, dataset.model(model) / _SEARCH
    if training.search_epochs and path.is_file():
        rate = read_artefact(path, RateSearch).chosen or planned.learning_rate
        planned = replace(planned, learning_rate=rate)
        training = replace(training, search_epochs=0, learning_rates=(rate,))
    kept = {planned.preprocessing: plan.preprocessing[planned.preprocessing]}
    return replace(plan, training=training, models={model: planned}, preprocessing=kept)
