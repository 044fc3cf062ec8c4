"""How fast a network trains on a machine, so that it need not be tried twice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One file of `<root>/speed/`. work: what was timed (model, variant, input size, ...). machine: where.

    seconds: memory format -> least seconds of a training step of `images` images; processor_seconds: the same in processor
    time of all threads. failed: memory format -> why it cannot be used. chosen: the format to train with.
    """

    work: dict[str, str]
    machine: dict[str, str]
    images: int
    seconds: dict[str, float]
    processor_seconds: dict[str, float]
    failed: dict[str, str]
    chosen: str
