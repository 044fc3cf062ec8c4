"""What makes a training run and what it left, so that a results folder explains itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class RunRecord:
    """`run.json`. identity: hash of all that decides the weights (plan, split, model, seed); a resume needs it equal.

    best_dice: validation Dice of best.pt, mean over classes of the counts summed over the fold. dice: of each class.
    versions: of autoseg, torch, Python. pretrained: what the weights were filled from, "" for random ones.
    """

    dataset: str
    model: str
    variant: str
    fold: int
    protocol: str
    identity: str
    seed: int
    device: str
    precision: str
    status: Literal["running", "finished", "stopped"]
    epochs_planned: int
    epochs_done: int = 0
    best_epoch: int = -1
    best_dice: float = 0.0
    dice: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    parameters: int = 0
    pretrained: str = ""
    versions: dict[str, str] = field(default_factory=dict)
