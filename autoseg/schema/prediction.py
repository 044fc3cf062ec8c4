"""What a prediction run did: `prediction.json` beside the masks."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PredictedCase:
    """One mask that was written. output: its path within the folder. size: (height, width) in pixels.

    pixels: class -> pixels of the mask. seconds: what decoding, the network and writing took; the network's share of a
    batch is an equal part. notes: what reading changed of the stored values.
    """

    case: str
    output: str
    size: tuple[int, int]
    pixels: dict[str, int]
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PredictionRecord:
    """`prediction.json`. models, folds: what was averaged. identities: member -> its `RunRecord.identity`.

    mirror: axes of the views that were averaged. failed: case -> what was wrong. skipped: cases whose mask was there.
    seconds: of the whole run, without loading the networks.
    """

    dataset: str
    models: tuple[str, ...]
    folds: tuple[int, ...]
    identities: dict[str, str]
    labels: dict[str, int | tuple[int, ...]]
    mirror: tuple[int, ...]
    device: str
    precision: str
    seconds: float
    cases: tuple[PredictedCase, ...]
    failed: dict[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
