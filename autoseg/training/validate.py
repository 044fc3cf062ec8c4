"""Validation on full images with the inference engine. Pixel counts are summed over the fold; Dice is that of the sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from autoseg.inference.engine import Engine
from autoseg.metrics.overlap import Counts, counts, total
from autoseg.preprocessing.array_dataset import ArrayDataset
from autoseg.schema.dataset import LabelScheme
from autoseg.training.distributed import SINGLE_PROCESS, DistributedContext


def validate(
    engine: Engine,
    store: ArrayDataset,
    cases: Sequence[str],
    scheme: LabelScheme,
    on_batch: Callable[[], None],
    team: DistributedContext = SINGLE_PROCESS,
) -> dict[str, float]:
    """Dice of each foreground class over the preprocessed images of all cases. NaN if a class is in no reference or prediction.

    on_batch: called before each group of images; it may raise to stop. Not called with several processes.
    """
    case_counts: list[dict[str, Counts]] = []
    for group in _groups(engine, store, team.shard(cases)):
        if team.size == 1:
            on_batch()
        for case, probabilities in zip(group, engine.probabilities([store.image(case) for case in group]), strict=True):
            reference = store.label(case)
            prediction = engine.label_map(probabilities, reference.shape)
            ignored = None if scheme.ignore is None else reference == scheme.ignore
            case_counts.append(counts(prediction, reference, scheme.foreground, ignored))
    local_counts = {name: total(case[name] for case in case_counts) for name in scheme.foreground}
    all_counts = team.all_gather(local_counts)
    return {name: total(process[name] for process in all_counts).dice for name in scheme.foreground}


def mean_dice(dice: dict[str, float]) -> float:
    """Mean over the classes with a defined Dice; 0 if there is none."""
    defined = [value for value in dice.values() if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else 0.0


def _groups(engine: Engine, store: ArrayDataset, cases: Sequence[str]) -> Iterator[list[str]]:
    """Cases in groups that fill a batch of the engine, so that few probability maps are in memory."""
    group: list[str] = []
    num_items = 0.0
    for case in cases:
        group.append(case)
        num_items += engine.num_batch_items(store.image(case))
        if num_items >= engine.batch_size:
            yield group
            group, num_items = [], 0.0
    if group:
        yield group
