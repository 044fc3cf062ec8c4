"""Stored trainings of a race, made up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.race.jobs import Job


def job(**changed: Any) -> Job:
    content = {"set": "heart64", "arm": "autoseg", "minutes": 5.0, "fold": 0, "seed": 0, "device": "cpu"}
    return Job(**{**content, **changed})


def record(dice: Mapping[str, float | None], patients: Mapping[str, str] | None = None, **changed: Any) -> dict[str, Any]:
    """A stored job: Dice of each case (None: no class in either mask)."""
    cases = {
        case: {"cavity": None if value is None else {"dice": value, "hd95": 10 * (1 - value), "nsd": value}}
        for case, value in dice.items()
    }
    return {
        "job": vars(job(**changed)), "cases": cases, "patients": dict(patients or {case: case for case in dice}), "steps": 7,
        "batch": 2, "input": [8, 8], "precision": "fp32", "saw": "no choice of the training saw the scored cases",
        "seconds": {"prepare": 1.0, "train": 290.0, "predict": 3.0}, "versions": {"torch": "2"}, "model": "m", "machine": {},
    }  # fmt: skip
