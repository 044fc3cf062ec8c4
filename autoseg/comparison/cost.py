"""Cost of each model, from the records of its runs, and the Pareto front of cost and score."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from autoseg.comparison.results import ModelResults
from autoseg.schema.comparison import Cost
from autoseg.schema.run import sum_of_energy


def cost(model: ModelResults) -> Cost:
    """Cost of a trained model: means over its folds; latency: median over all images that its folds predicted, in seconds."""
    runs = list(model.folds.values())
    first, plan = runs[0], runs[0].model_plan
    seconds = [
        case.seconds["network"] for run in runs if run.prediction for case in run.prediction.cases if "network" in case.seconds
    ]
    return Cost(
        parameters=first.record.parameters,
        flops=plan.flops,
        input_size=plan.input_size,
        steps=round(statistics.mean(run.record.steps for run in runs)),
        epoch_seconds=statistics.mean(run.record.epoch_seconds for run in runs),
        training_seconds=statistics.mean(run.record.seconds for run in runs),
        peak_memory=max(run.record.peak_memory for run in runs),
        peak_device_memory=max(run.record.peak_device_memory for run in runs),
        planned_memory=plan.memory,
        latency=statistics.median(seconds) if seconds else 0.0,
        device=first.record.device,
        precision=first.record.precision,
        energy={part: joules / len(runs) for part, joules in sum_of_energy(run.record.energy for run in runs).items()},
    )


def pareto(costs: Mapping[str, float], scores: Mapping[str, float]) -> tuple[str, ...]:
    """The Pareto front, by increasing cost: models for which no other has a score at least as high at no higher cost."""
    front: list[str] = []
    for name in sorted(costs, key=lambda name: (costs[name], -scores[name])):
        if not front or scores[name] > scores[front[-1]]:
            front.append(name)
    return tuple(front)
