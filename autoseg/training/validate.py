"""Validation on full images with the inference engine. Pixel counts are summed over the fold; Dice is that of the sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from autoseg.inference.engine import Engine
from autoseg.metrics.overlap import Counts, averages, counts, total
from autoseg.preprocessing.array_dataset import ArrayDataset
from autoseg.schema.dataset import LabelScheme
from autoseg.training.distributed import SINGLE_PROCESS, DistributedContext


@dataclass(frozen=True)
class Validation:
    """dice: of each foreground class; not-a-number if it is in no reference or prediction. averages: see `overlap.averages`."""

    dice: dict[str, float]
    averages: dict[str, float]

    @classmethod
    def of(cls, classes: Mapping[str, Counts]) -> Validation:
        """classes: summed over the cases."""
        return cls({name: one.dice for name, one in classes.items()}, averages(classes))

    def value(self, monitor: str) -> float:
        """The average that `Training.monitor` names; 0 if it is undefined."""
        value = self.averages[monitor]
        return 0.0 if math.isnan(value) else value


def validate(
    engine: Engine,
    store: ArrayDataset,
    cases: Sequence[str],
    scheme: LabelScheme,
    on_batch: Callable[[], None],
    team: DistributedContext = SINGLE_PROCESS,
) -> Validation:
    """Scores of the preprocessed images of all cases.

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
    return Validation.of({name: total(process[name] for process in all_counts) for name in scheme.foreground})


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
