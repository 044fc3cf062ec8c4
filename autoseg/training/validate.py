"""Validation on whole images, through the same engine that predicts: counts summed over the fold, Dice of the sums."""

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
    """Dice of each foreground class over all cases' prepared images; not-a-number where a class is nowhere, nor predicted.

    on_batch: called before each group of images, to leave by if need be; not in a team, whose processes leave together.
    """
    found: list[dict[str, Counts]] = []
    for group in _groups(engine, store, team.share(cases)):
        if team.size == 1:
            on_batch()
        for case, probabilities in zip(group, engine.probabilities([store.image(case) for case in group]), strict=True):
            reference = store.label(case)
            prediction = engine.label_map(probabilities, reference.shape)
            ignored = None if scheme.ignore is None else reference == scheme.ignore
            found.append(counts(prediction, reference, scheme.foreground, ignored))
    added = {name: total(each[name] for each in found) for name in scheme.foreground}
    everywhere = team.gather(added)
    return {name: total(each[name] for each in everywhere).dice for name in scheme.foreground}


def mean_dice(dice: dict[str, float]) -> float:
    """Mean over the classes where Dice is defined; 0 where it is nowhere."""
    defined = [value for value in dice.values() if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else 0.0


def _groups(engine: Engine, store: ArrayDataset, cases: Sequence[str]) -> Iterator[list[str]]:
    """Cases in groups that fill a batch of the engine, so that few probability maps stand in memory."""
    group: list[str] = []
    load = 0.0
    for case in cases:
        group.append(case)
        load += engine.num_batch_items(store.image(case))
        if load >= engine.batch_size:
            yield group
            group, load = [], 0.0
    if group:
        yield group
