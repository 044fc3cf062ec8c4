"""The selection of a dataset: rungs, then folds. It can be interrupted anywhere; what has ended is not done again."""

from __future__ import annotations

import logging
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import autoseg
from autoseg.runner.jobs import record_of
from autoseg.schema.comparison import PairTest
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.frame import count
from autoseg.schema.plan import Plan, Splits
from autoseg.schema.runner import GridTable, Job, JobRow
from autoseg.schema.scores import Scores
from autoseg.schema.selection import UNDEFINED, Confirmed, ModelSelection, Role, Rung, SelectionCandidate, TriedCandidate
from autoseg.selection import confirm, halving, ladder, trials
from autoseg.selection.candidates import PlannedCandidate, Proposal
from autoseg.selection.cases import CaseRoles, case_roles
from autoseg.selection.ladder import Ladder
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import METRICS
from autoseg.support.files import hash_text, read_artefact, write_artefact
from autoseg.support.workspace import Dataset

logger = logging.getLogger(__name__)

FILE = "selection.json"
# Trained with the planner's settings and confirmed next to the winner, if it is among the models; else the first of them.
DEFAULT_MODEL = "efficientnet_lite0_upernet"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to select for. propose: makes the candidates for trainings of a fold of so many seconds. run: runs jobs to their
    end, and shows its table to a function whenever it changes.

    parallel: how many jobs run at full speed at the same time.
    """

    dataset: Dataset
    spec: DatasetSpec
    fingerprint: Fingerprint
    splits: Splits
    models: tuple[str, ...]
    hours: float
    objective: str
    seed: int
    propose: Callable[[float], Proposal]
    run: Callable[[Sequence[Job], Callable[[GridTable], None]], GridTable]
    parallel: int = 1
    machine: str = ""

    @property
    def path(self) -> Path:
        return path_of(self.dataset)


def path_of(dataset: Dataset) -> Path:
    """Of a dataset's selection.json."""
    return dataset.trial(trials.FOLDER) / FILE


def select_model(request: Request) -> ModelSelection:
    """Find and confirm the best candidate within the hours; write selection.json after each step.

    The same call continues an interrupted selection, one with more hours adds to it. Raises AutosegError if the hours are too
    few, if what is there is of other data, folds or another seed, and if no training succeeds.
    """
    return _Search(request).run()


class _Search:
    """One call. state: what is in selection.json. planned: candidate -> its plan. step_seconds: of an optimiser step, measured
    in the longest training so far."""

    state: ModelSelection
    planned: dict[str, PlannedCandidate]

    def __init__(self, request: Request) -> None:
        self.request = request
        self.step_seconds: dict[str, float] = {}
        self._began = time.monotonic()
        # Until then nothing is saved: an interrupted call proposes again.
        self._has_entered = False
        METRICS.get(request.objective)
        # As it was when this call began: what is saved below lacks what is not done again yet.
        self._before = _read(request)
        self._spent_before = 0.0 if self._before is None else self._before.spent_hours * 3600
        self.roles: CaseRoles = case_roles(request.splits, request.fingerprint, request.spec, request.seed)
        logger.info(f"{request.dataset.name}: {self.roles.reason}")

    def run(self) -> ModelSelection:
        try:
            self._enter()
            self._has_entered = True
            names, numbers = list(self.state.entered), halving.entrants(len(self.state.entered))
            for level, go_on in zip(self._ladder.levels, (*numbers[1:], halving.CONTENDERS - 1), strict=True):
                last = self._rung("full", level, names, go_on)
                names = [one.name for one in last.tried if not one.eliminated]
                self._save(rungs=(*self.state.rungs, last))
            self._confirm(last)
        finally:
            if self._has_entered:
                self._save()
        return self.state

    @property
    def _ladder(self) -> Ladder:
        return Ladder(self.state.first_seconds, self.state.level, self.state.entered)

    # Candidates and hours.

    def _enter(self) -> None:
        """Read what is there, or propose candidates; the state then has a ladder and no rungs."""
        request = self.request
        before = self._before
        same = before is not None and request.hours <= before.hours and set(request.models) <= _models(before)
        if before is not None and same:
            if request.hours < before.hours:
                logger.info(f"{request.dataset.name} was already given {before.hours:g} hours")
            self.planned = {one.name: self._stored(one) for one in before.candidates if not one.left_out}
            self.state = replace(
                before, objective=request.objective, higher_is_better=METRICS.get(request.objective).higher_is_better,
                rungs=tuple(rung for rung in before.rungs if rung.kind == "frozen"), confirmed=(), tests=(), recommended="",
                reason="", predict="", train=(),
            )  # fmt: skip
            return
        folds, models = len(request.splits.folds), len(request.models)
        seconds = request.hours * 3600 * request.parallel
        if before is None:
            proposal = request.propose(ladder.first_fold_seconds(seconds, models, folds))
        else:
            proposal = request.propose(halving.level_seconds(before.first_seconds, before.level))
        known = [] if before is None else [one for one in before.candidates if one.name in before.entered]
        planned = {one.candidate.name: one for one in proposal.candidates}
        self.planned = planned | {one.name: self._stored(one) for one in known}
        candidates = [one.candidate for one in self.planned.values()]
        candidates = [*known, *(one for one in candidates if one.name not in {other.name for other in known})]
        left = seconds - (self._spent() * request.parallel)
        chosen = (
            ladder.first_ladder(candidates, left, models, folds)
            if before is None
            else ladder.longer_ladder(before, candidates, left, models, folds)
        )
        if before is not None and (chosen.level, set(chosen.entered)) == (before.level, set(before.entered)):
            more = ladder.hours_for_longer(before, models, folds)
            logger.info(f"{request.hours:g} hours allow nothing more: longer trainings take {more:.1f} hours in all")
        self.state = self._new_state(chosen, candidates)
        self._frozen_round(candidates)
        self._name_left_out(proposal)
        self._save()
        logger.info(
            f"{count(len(self.state.entered), 'candidate')}; trainings of "
            f"{', '.join(f'{halving.level_seconds(chosen.first, level):.0f}' for level in chosen.levels)} s, then {folds} folds"
        )

    def _new_state(self, chosen: Ladder, candidates: Sequence[SelectionCandidate]) -> ModelSelection:
        request = self.request
        return ModelSelection(
            dataset=request.dataset.name, objective=request.objective,
            higher_is_better=METRICS.get(request.objective).higher_is_better, seed=request.seed,
            hours=request.hours if self._before is None else max(request.hours, self._before.hours),
            spent_hours=self._spent() / 3600, content_hash=request.fingerprint.content_hash,
            splits_hash=splits_hash(request.splits), first_seconds=chosen.first, level=chosen.level, entered=chosen.entered,
            default=self._default(candidates),
            job_seconds=dict(self._before.job_seconds) if self._before is not None else {},
            training=self.roles.training, deciding=self.roles.deciding, held_back=self.roles.held_back,
            roles_reason=self.roles.reason, candidates=tuple(replace(one, left_out="") for one in candidates),
            machine=request.machine, versions={"autoseg": autoseg.__version__, "python": platform.python_version()},
        )  # fmt: skip

    def _frozen_round(self, candidates: Sequence[SelectionCandidate]) -> None:
        """Compare frozen encoders; the candidates of those that fall are replaced by the next ones."""
        entrants = ladder.frozen_entrants(candidates)
        if not entrants:
            return
        first = self._ladder.levels[0]
        rung = self._rung("frozen", first, [one.name for one in entrants], math.ceil(len(entrants) / 2))
        eliminated = {self.state.candidate(one.name).model: one.eliminated for one in rung.tried if one.eliminated}
        limit = halving.level_seconds(self.state.first_seconds, first)
        able = [one for one in candidates if one.name in self.state.entered or not trials.too_slow(one.step_seconds, limit)]
        left = [one.name for one in able if one.model not in eliminated]
        order = sorted(left, key=lambda name: name not in self.state.entered)
        entered = tuple(order[: len(self.state.entered)])
        reasons = {model: f"its frozen encoder was eliminated: {why}" for model, why in eliminated.items()}
        updated = tuple(replace(one, left_out=reasons.get(one.model, "")) for one in self.state.candidates)
        self.state = replace(self.state, entered=entered, candidates=updated, rungs=(rung,))

    def _name_left_out(self, proposal: Proposal) -> None:
        """Give each candidate that does not enter the reason, and store the plans of the others."""
        state = self.state
        first = halving.level_seconds(state.first_seconds, self._ladder.levels[0])
        updated = []
        for one in state.candidates:
            reason = one.left_out
            if one.name not in state.entered and not reason:
                enough = f"{state.hours:g} hours allow {count(len(state.entered), 'candidate')}, in the order of this list"
                reason = trials.too_slow(one.step_seconds, first) or enough
            updated.append(replace(one, left_out="" if one.name in state.entered else reason))
            if one.name in (*state.entered, state.default):
                write_artefact(self._plan_of(one.name), self.planned[one.name].plan)
        refused = "".join(f" {model} is left out: {why}." for model, why in proposal.refused.items())
        self.state = replace(state, candidates=tuple(updated), roles_reason=self.roles.reason + refused)

    def _plan_of(self, name: str) -> Path:
        return self.request.dataset.trial(trials.FOLDER) / name / "plan.json"

    def _stored(self, candidate: SelectionCandidate) -> PlannedCandidate:
        path = self._plan_of(candidate.name)
        return PlannedCandidate(candidate, read_artefact(path, Plan, f"delete {self.request.path} to plan again"))

    def _default(self, candidates: Sequence[SelectionCandidate]) -> str:
        """The planner's own choice for the default model."""
        models = [one.model for one in candidates]
        model = DEFAULT_MODEL if DEFAULT_MODEL in models else next((m for m in self.request.models if m in models), models[0])
        own = [one for one in candidates if one.model == model]
        return min(own, key=lambda one: (one.changes, one.step_seconds, one.name)).name

    # Rungs.

    def _rung(self, kind: Literal["frozen", "full"], level: int, names: Sequence[str], go_on: int) -> Rung:
        request, state = self.request, self.state
        seconds = halving.level_seconds(state.first_seconds, level)
        jobs = {}
        for name in names:
            steps = trials.steps_in(seconds, self.step_seconds.get(name, state.candidate(name).step_seconds))
            jobs[name] = trials.prepare_trial(
                request.dataset, self.planned[name], level, steps, roles=self.roles, splits=request.splits, seed=request.seed
            )
        rows = self._run(list(jobs.values()))
        scores = {}
        tried = {}
        for name, job in jobs.items():
            row = rows[job]
            if row.state != "done":
                tried[name] = _failed(name, row)
                continue
            record, scores[name] = trials.read_result(request.dataset, job)
            fast = trials.image_seconds(record)
            self.step_seconds[name] = fast * record.batch_size or state.candidate(name).step_seconds
            tried[name] = TriedCandidate(
                name=name, value=math.nan, steps=record.steps, seconds=record.seconds, image_seconds=fast
            )
        if not scores:
            reasons = "; ".join(f"{name}: {one.eliminated}" for name, one in tried.items())
            raise AutosegError(f"no candidate could be trained: {reasons}", "see autoseg_train.log in the candidates' folders")
        by_fold = {name: {0: one} for name, one in scores.items()}
        values = confirm.paired(request.dataset, request.spec, by_fold, request.objective, None)
        means = dict(zip(values.names, values.matrix.mean(axis=1), strict=True))
        tried |= {name: replace(tried[name], value=float(means[name])) for name in scores}
        decided = halving.decide(list(tried.values()), go_on, request.objective, state.higher_is_better)
        best = ", ".join(f"{one.name} {one.value:.3f}" for one in decided if not one.eliminated)
        logger.info(f"level {level}: {count(len(decided), 'candidate')}; ahead by {request.objective}: {best}")
        return Rung(kind=kind, level=level, seconds=seconds, tried=decided)

    def _run(self, jobs: Sequence[Job]) -> dict[Job, JobRow]:
        """Run the jobs; what they took is counted even if they are interrupted."""
        tables: list[GridTable] = []
        try:
            table = self.request.run(jobs, tables.append)
            tables.append(table)
        finally:
            seconds = dict(self.state.job_seconds)
            for row in tables[-1].rows if tables else ():
                if row.attempts:
                    seconds[_key(row.job)] = round(seconds.get(_key(row.job), 0.0) + row.seconds, 1)
            self.state = replace(self.state, job_seconds=seconds)
        return {row.job: row for row in table.rows}

    # Folds.

    def _confirm(self, last: Rung) -> None:
        request = self.request
        ranked = [one.name for one in last.tried if not math.isnan(one.value)]
        default = self.state.default
        if default not in self.planned:
            self.planned[default] = self._stored(self.state.candidate(default))
        roles: dict[str, list[Role]] = {ranked[0]: ["winner"]}
        if len(ranked) > 1:
            roles[ranked[1]] = ["runner-up"]
        roles.setdefault(default, []).append("default")
        seconds = halving.level_seconds(self.state.first_seconds, self.state.level)
        runs: dict[str, tuple[str, list[Job]]] = {}
        for name in roles:
            steps = trials.steps_in(seconds, self.step_seconds.get(name, self.state.candidate(name).step_seconds))
            runs[name] = self._prepared_folds(name, steps)
        rows = self._run([job for _, jobs in runs.values() for job in jobs])
        scores, failed = self._fold_scores(runs, rows)
        honest, dice, everywhere = {}, {}, {}
        tests: tuple[PairTest, ...] = ()
        cases = 0
        if scores:
            held_back, spec = self.roles.held_back, request.spec
            values = confirm.paired(request.dataset, spec, scores, request.objective, held_back)
            honest, tests, cases = confirm.intervals(values), confirm.tests(values), len(values.units)
            dice = confirm.intervals(confirm.paired(request.dataset, spec, scores, "dice", held_back))
            everywhere = confirm.intervals(confirm.paired(request.dataset, spec, scores, request.objective, None))
        confirmed = []
        for name, (run, jobs) in runs.items():
            records = [trials.read_result(request.dataset, job)[0] for job in jobs] if name in scores else []
            overall = everywhere.get(name, UNDEFINED)
            confirmed.append(Confirmed(
                name=name, run=run, roles=tuple(roles[name]), folds=len(jobs), cases=cases,
                value=honest.get(name, UNDEFINED), dice=dice.get(name, UNDEFINED), value_all=overall.mean,
                seconds=sum(record.seconds for record in records), failed=failed.get(name, ""),
                image_seconds=sum(map(trials.image_seconds, records)) / max(1, len(records)),
            ))  # fmt: skip
        recommended, reason = confirm.recommend(confirmed, tests, request.objective)
        self._save(confirmed=tuple(confirmed), tests=tests, recommended=recommended, reason=reason)
        number = request.dataset.number
        self._save(
            predict=f"autoseg_predict -i IMAGES -o MASKS -d {number} -m best", train=final_commands(self.state, number),
            overhead_seconds=self._overhead(),
        )  # fmt: skip
        confirm.write_best(request.dataset, self.state, scores)

    def _prepared_folds(self, name: str, steps: int) -> tuple[str, list[Job]]:
        """The folds that were begun earlier keep their number of steps, even if times are measured differently now."""
        request = self.request
        before = self._before
        if before is not None and before.level == self.state.level:
            known = next((one for one in before.confirmed if one.name == name), None)
            if known is not None and (request.dataset.model(known.run) / "plan.json").is_file():
                model = self.planned[name].candidate.model
                return known.run, [Job(request.dataset.name, model, fold, known.run) for fold in range(known.folds)]
        return trials.prepare_folds(request.dataset, self.planned[name], steps, request.splits, request.seed)

    def _fold_scores(
        self, runs: dict[str, tuple[str, list[Job]]], rows: dict[Job, JobRow]
    ) -> tuple[dict[str, dict[int, Scores]], dict[str, str]]:
        scores, failed = {}, {}
        for name, (_, jobs) in runs.items():
            problems = [f"fold {job.fold}: {rows[job].message}" for job in jobs if rows[job].state != "done"]
            if problems:
                failed[name] = "; ".join(problems)
            else:
                scores[name] = {job.fold: trials.read_result(self.request.dataset, job)[1] for job in jobs}
        return scores, failed

    def _overhead(self) -> float:
        """Seconds of the jobs that were not training."""
        root, seconds = self.request.dataset.root, 0.0
        for key, whole in self.state.job_seconds.items():
            trial, _, fold = key.rpartition(" ")
            record = record_of(root, Job(self.request.dataset.name, "any", int(fold), trial))
            seconds += max(0.0, whole - (record.seconds if record is not None else 0.0))
        return round(seconds, 1)

    def _spent(self) -> float:
        """Seconds of this selection on the clock, in all calls."""
        return self._spent_before + time.monotonic() - self._began

    def _save(self, **changes: object) -> None:
        self.state = replace(self.state, spent_hours=round(self._spent() / 3600, 4), **changes)  # type: ignore[arg-type]
        write_artefact(self.request.path, self.state)


def splits_hash(splits: Splits) -> str:
    """Of the cases of the folds."""
    return hash_text(*(case for fold in splits.folds for case in ("train", *fold.train, "validation", *fold.validation)))


def final_commands(selection: ModelSelection, number: int) -> tuple[str, ...]:
    """Plan and train the recommended candidate, for longer than the selection could."""
    candidate = selection.candidate(selection.recommended)
    rate = f"models.{candidate.model}.learning_rate"
    planned = [f"--set {path}={value}" for path, value in candidate.settings.items() if path != rate]
    planned.append(f"--set {rate}={candidate.settings[rate]}")
    return (
        f"autoseg_plan_and_preprocess {number} --models {candidate.model} {' '.join(planned)}",
        f"autoseg_train {number} {candidate.model} all",
    )


def read_selection(dataset: Dataset) -> ModelSelection:
    """Raises AutosegError if there is none."""
    return read_artefact(path_of(dataset), ModelSelection, f"autoseg_select {dataset.number} --hours 1")


def _read(request: Request) -> ModelSelection | None:
    """What earlier calls wrote. Raises AutosegError if it is of other data, folds or another seed."""
    path = request.path
    if not path.exists():
        return None
    state = read_artefact(path, ModelSelection, f"move {path.parent} away to select again")
    now = {
        "images and masks": request.fingerprint.content_hash, "folds": splits_hash(request.splits), "seed": request.seed,
    }  # fmt: skip
    then = {"images and masks": state.content_hash, "folds": state.splits_hash, "seed": state.seed}
    changed = [name for name in now if now[name] != then[name]]
    if changed:
        raise AutosegError(
            f"{path} is of other {' and '.join(changed)}",
            f"move {path.parent} away to select again" + (f", or give --seed {state.seed}" if changed == ["seed"] else ""),
        )
    return state


def _models(state: ModelSelection) -> set[str]:
    return {one.model for one in state.candidates}


def _failed(name: str, row: JobRow) -> TriedCandidate:
    eliminated = f"its training failed: {row.message}"
    return TriedCandidate(name=name, value=math.nan, steps=0, seconds=0.0, image_seconds=0.0, eliminated=eliminated)


def _key(job: Job) -> str:
    return f"{job.trial} {job.fold}"
