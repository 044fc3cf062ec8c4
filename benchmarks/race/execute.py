"""Runs jobs: each in a process of its own on a core of its own, several side by side; scores the masks; stores what came."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.race.arms import Arm, find
from benchmarks.race.jobs import Job, Store
from benchmarks.race.scorer import case_mean, score_cases
from benchmarks.race.sets import RaceSet
from benchmarks.race.side import RESULT, Request
from benchmarks.suite import processes

REPOSITORY = Path(__file__).parent.parent.parent
_SHOWN_OF_ERROR = 2000


@dataclass(frozen=True, kw_only=True)
class Course:
    """What all jobs share. pythons: of each side. options: of each side, besides the arm's. machine: stored with each job."""

    root: Path
    store: Store
    sets: Mapping[str, RaceSet]
    pythons: Mapping[str, str]
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    keep: bool = False

    def environment(self, work: Path) -> dict[str, str]:
        folders = {
            "nnUNet_raw": self.root / "raw", "nnUNet_preprocessed": work / "preprocessed", "nnUNet_results": work / "results",
        }  # fmt: skip
        # On a GPU nnU-Net's default of processes for augmentation stays.
        serial = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1"} if self.machine.get("device", "cpu") == "cpu" else {}
        alike = {"OMP_NUM_THREADS": str(self.threads), "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(REPOSITORY)}
        return {**os.environ, **alike, **serial, **{name: str(folder) for name, folder in folders.items()}}


class Stopped(Exception):
    """The race was interrupted."""


class Runner:
    """Works through jobs, one on each of the cores at a time."""

    def __init__(self, course: Course, say: Callable[[str], None]) -> None:
        self._course, self._say = course, say
        self._running: set[subprocess.Popen[str]] = set()
        self._stopping = threading.Event()

    def run(self, jobs: Sequence[Job], cores: Sequence[int | None]) -> int:
        """Gives the number of failed jobs. On Ctrl-C the running ones end, and are done again by the next call."""
        left, failed = deque(enumerate(jobs, 1)), list[Job]()

        def work(core: int | None) -> None:
            while not self._stopping.is_set():
                try:
                    number, job = left.popleft()
                except IndexError:
                    return
                with suppress(Stopped):
                    if not self.run_job(job, core, f"{number}/{len(jobs)}"):
                        failed.append(job)

        threads = [threading.Thread(target=work, args=(core,)) for core in cores]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            self._stopping.set()
            for process in tuple(self._running):
                # Those that have ended have a code, and their number may be another's.
                with suppress(ProcessLookupError):
                    if process.returncode is None:
                        os.killpg(process.pid, signal.SIGKILL)
            for thread in threads:
                thread.join()
            raise
        return len(failed)

    def run_job(self, job: Job, core: int | None, number: str = "") -> bool:
        """Train, predict, score and store; whether it worked. A failed job is stored with its error."""
        course = self._course
        work, output = course.root / "work" / job.name, course.root / "predictions" / job.name
        for folder in (work, output):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        try:
            content = self._result(job, core, work, output)
        except (Exception, SystemExit) as error:
            if self._stopping.is_set():
                raise Stopped from error
            text = str(error) if isinstance(error, SystemExit) else traceback.format_exc()
            course.store.add(job, error=text[-_SHOWN_OF_ERROR:], machine=dict(course.machine))
            self._say(f"{number} {job.name} FAILED:\n{text[-_SHOWN_OF_ERROR:]}")
            return False
        course.store.add(job, **content, machine=dict(course.machine))
        if not course.keep:
            shutil.rmtree(work)
        self._say(f"{number} {job.name}: {in_words(content)}")
        return True

    def _result(self, job: Job, core: int | None, work: Path, output: Path) -> dict[str, Any]:
        course, arm = self._course, find(job.arm)
        chosen, file = course.sets[job.set], work / "request.json"
        request = Request(
            raw=str(chosen.raw), set_file=str(chosen.file), work=str(work), output=str(output), seconds=60 * job.minutes,
            fold=job.fold, seed=job.seed, device=job.device, core=core,
            options={**course.options.get(arm.side, {}), **arm.options},
        )  # fmt: skip
        request.write(file)
        ended = processes.run(words(arm, course.pythons, file), course.environment(work), on_start=self._register)
        (work / "output.txt").write_text(ended.output, encoding="utf-8")
        processes.must(ended, job.name)
        content: dict[str, Any] = json.loads((work / RESULT).read_text(encoding="utf-8"))
        facts, held_out = chosen.content(), request.held_out()
        cases = score_cases(output, chosen.raw / "labelsTr", held_out, facts["labels"])
        patients = {case: facts["patients"][case] for case in held_out}
        return {**content, "memory": ended.memory, "patients": patients, "cases": cases}

    def _register(self, process: subprocess.Popen[str]) -> None:
        self._running.add(process)
        # It may have started while the others were ended.
        if self._stopping.is_set():
            os.killpg(process.pid, signal.SIGKILL)


def words(arm: Arm, pythons: Mapping[str, str], request: Path) -> list[str]:
    """The command of a job."""
    return [pythons.get(arm.side, sys.executable), "-u", "-m", arm.module, str(request)]


def in_words(content: Mapping[str, Any]) -> str:
    """Mean Dice of the cases, steps and seconds, in one line."""
    values = [value for scores in content["cases"].values() if (value := case_mean(scores, "dice")) is not None]
    dice = f"{sum(values) / len(values):.3f}" if values else "undefined"
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in content["seconds"].items())
    return f"Dice {dice}, {content['steps']} steps, {seconds}"
