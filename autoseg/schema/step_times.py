"""Measured seconds of optimiser steps, so that each configuration is measured once on a machine."""

from __future__ import annotations

from dataclasses import dataclass, field

from autoseg.schema.artefact import Artefact
from autoseg.schema.limits import NonNegative


@dataclass(frozen=True)
class StepTimes(Artefact):
    """`<root>/step_times.json`. machines: machine -> configuration -> seconds of one step."""

    NAME = "step_times"
    VERSION = 1

    machines: dict[str, dict[str, NonNegative]] = field(default_factory=dict)
