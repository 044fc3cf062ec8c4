"""Tables that only some comparisons have: several seeds, two annotators, other datasets, confidence, calibration."""

from __future__ import annotations

from autoseg.comparison.cells import Table, cell, decimal, interval, ordered_by_dice, percent, points, spread
from autoseg.schema.comparison import DatasetComparison


def seeds(dataset: DatasetComparison) -> Table:
    rows = []
    for one in dataset.seeds:
        each = ", ".join(f"{seed}: {percent(value)}" for seed, value in zip(one.seeds, one.values, strict=True))
        numbers = (percent(one.mean), percent(one.std), percent(one.fold_std))
        rows.append((one.model, each, *numbers, ", ".join(map(str, one.folds))))
    note = (
        "mDSC in %, of each seed the mean over the folds that all seeds have; deviation over seeds: of these means; over "
        "folds: the mean over the seeds. Other tables are of the plan's own seed, but for their columns of seeds"
    )
    headings = ("model", "seed: mDSC", "mean", "deviation over seeds", "deviation over folds", "folds")
    return Table(title=f"Seeds on {dataset.dataset}", note=note, headings=headings, rows=tuple(rows))


_ANNOTATORS = ("with the first", "with the second", "with both", "of the two people", "difference")


def annotators(dataset: DatasetComparison) -> Table:
    rows = []
    for one in dataset.annotators:
        means = (one.first, one.second, one.both, one.people)
        cells = [f"{cell(value.mean, dataset.metric)} ({interval(value, dataset.metric)})" for value in means]
        low, high = (points(value, dataset.metric) for value in (one.difference.low, one.difference.high))
        rows.append((one.model, str(one.cases), *cells, f"{points(one.difference.mean, dataset.metric)} ({low} to {high})"))
    note = (
        f"{dataset.metric} of the cases that two people drew (95 % interval, {dataset.units}s drawn): each model with the "
        "dataset's masks, with the second annotator's, and its mean with both; the two people with each other, which is the "
        "ceiling; and the difference between the last two"
    )
    return Table(
        title=f"Agreement with two annotators on {dataset.dataset}", note=note, headings=("model", "cases", *_ANNOTATORS),
        rows=tuple(rows),
    )  # fmt: skip


def external(dataset: DatasetComparison) -> Table:
    rows = []
    for drop in dataset.external_validation:
        change = drop.external_micro.mean - drop.internal_micro.mean
        cells = [spread(one) for one in (drop.internal_micro, drop.external_micro)]
        means = [spread(one) for one in (drop.internal_class_mean, drop.external_class_mean)]
        images = [spread(one) for one in (drop.internal_per_image, drop.external_per_image)]
        rows.append((drop.model, drop.external, str(drop.cases), *cells, points(change, "dice"), *means, *images))
    mapped = "; ".join(
        f"{drop.external}: {', '.join(f'{a} as {b}' for a, b in drop.labels.items())}"
        for drop in {drop.external: drop for drop in dataset.external_validation}.values()
    )
    headings = (
        "model",
        "other dataset",
        "cases",
        "mDSC internal",
        "mDSC external",
        "change",
        "class mean internal",
        "external",
        "Dice of images internal",
        "external",
    )
    note = f"internal and external with the same labels ({mapped}); mean ± deviation over folds, in %"
    return Table(
        title=f"Trained on {dataset.dataset}, external validation", note=note, headings=headings, rows=tuple(rows), keys=2
    )


def risks(dataset: DatasetComparison) -> Table:
    rows = [
        (one.model, one.confidence, *(decimal(value) for value in (one.aurc, one.best, one.random, one.augrc, one.best_augrc)))
        for one in dataset.risk_coverage
    ]
    note = (
        "AURC: area under the risk-coverage curve; risk is 1 - Dice of a case; lower is better. AUGRC: of the generalised "
        "curve: the loss let through as a fraction of all cases, so that a confident failure counts once. Expected Dice: from "
        "a line fitted to the confidence of the same cases, with a separate value for empty masks"
    )
    return Table(
        title=f"Confidence on {dataset.dataset}",
        note=note,
        headings=("model", "confidence", "AURC", "perfect", "random", "AUGRC", "perfect AUGRC"),
        rows=tuple(rows),
        keys=2,
    )


def calibrations(dataset: DatasetComparison) -> Table:
    names = {"ece": "ECE", "near_ece": "ECE near the foreground", "brier": "Brier", "near_brier": "Brier near the foreground"}
    rows = [
        (result.model, *(decimal(result.calibrations[name]) for name in names))
        for result in ordered_by_dice(dataset)
        if result.calibrations
    ]
    note = (
        "of the stored probabilities of all pixels, and of the foreground with a band of a fiftieth of the image's diagonal "
        "around it, where a network can be wrong; lower is better; means over folds"
    )
    return Table(
        title=f"Calibration on {dataset.dataset}", note=note, headings=("model", *names.values()), rows=tuple(rows)
    )
