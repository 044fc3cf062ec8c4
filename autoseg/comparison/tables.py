"""A comparison as tables: comparison.csv for programs, `Table` for display."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence

from autoseg.comparison.cells import (
    SEEDS_NOTE,
    Table,
    display_factor,
    folds,
    format_bytes,
    interval,
    ordered_by_dice,
    p_value,
    percent,
    points,
    seed_deviations,
    spreads,
    with_seeds,
)
from autoseg.comparison.detail_tables import annotators, calibrations, external, risks, seeds
from autoseg.metrics.rules import is_defined
from autoseg.schema.comparison import (
    CLASS_MEAN,
    HEADLINE,
    Comparison,
    DatasetComparison,
    Interval,
    ModelResult,
    PairTest,
    Ranking,
    Selection,
    StratumScore,
)
from autoseg.schema.run import energy_text
from autoseg.schema.scores import BUILT_IN_METRICS

ALL = "all classes"
# The first study's four numbers, from counts summed over the cases and foreground classes of a fold.
STUDY = {"mDSC": HEADLINE, "mIoU": "micro.iou", "mPrec": "micro.precision", "mRec": "micro.recall"}
TESTED = "tested"
OBJECTS = {
    "area bias": "pooled.area_bias", "area error": "per_image.area_error", "Boundary IoU": "per_image.boundary_iou",
    "objects found": "pooled.object_sensitivity", "precision of objects": "pooled.object_precision",
    "object F1": "pooled.object_f1", "panoptic quality": "per_image.panoptic_quality",
}  # fmt: skip
OBJECTS_NOTE = (
    "in %; area bias: above zero if too much is predicted, of the summed areas; area error, Boundary IoU and panoptic quality: "
    "means over the cases; objects are connected parts, found if their IoU is above 0.5, counted over all cases"
)
# Both ways to score a class that is in one of the two masks only.
HD95 = {"HD95, left out": "per_image.hd95", "HD95, diagonal": "per_image.hd95_diagonal"}
_HD95_NOTE = "HD95 where a class is in one mask only: left out, or the image's diagonal"
ENERGY_NOTE = "energy: of the whole machine's parts named, with other programs, during a fold's training, the mean over folds"
_NO_INTERVAL = Interval(math.nan, math.nan, math.nan)


def comparison_csv(comparison: Comparison) -> str:
    """One row per dataset, model, class, averaging and metric: mean and deviation over folds, and where there is one the 95 %
    interval of this mean. Averaging "tested": the mean over units of what is tested. Undefined cells are empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    numbers = ("mean", "std", "low", "high")
    writer.writerow(["dataset", "model", "family", "variant", "class", "averaging", "metric", *numbers, "folds", "cases"])
    for dataset in comparison.datasets:
        for result in dataset.models:
            about = [dataset.dataset, result.model, result.family, result.variant]
            for name, key, folds_of, cells in _numbers(dataset, result):
                averaging, _, metric = key.partition(".")
                texts = [f"{value:.6f}" if is_defined(value) else "" for value in cells]
                writer.writerow([*about, name, averaging, metric, *texts, folds_of, result.cases])
    return stream.getvalue()


def _numbers(dataset: DatasetComparison, result: ModelResult) -> Iterator[tuple[str, str, int, tuple[float, ...]]]:
    """Class, averaging and metric, number of folds, and mean, deviation, limits of the interval."""
    for name, estimates in ((ALL, result.overall), *result.classes.items()):
        for key, estimate in estimates.items():
            one = result.intervals.get(key, _NO_INTERVAL) if name == ALL else _NO_INTERVAL
            yield name, key, len(estimate.folds), (estimate.mean, estimate.std, one.low, one.high)
    tested = result.case_mean
    yield ALL, f"{TESTED}.{dataset.metric}", len(result.folds) or 1, (tested.mean, math.nan, tested.low, tested.high)


def tables(comparison: Comparison) -> Iterator[Table]:
    """All tables for display, by dataset."""
    if len(comparison.datasets) > 1:
        yield across(comparison)
    for dataset in comparison.datasets:
        yield overall(dataset)
        yield per_class(dataset)
        if has_objects(dataset):
            yield objects(dataset)
        if dataset.seeds:
            yield seeds(dataset)
        if dataset.tests:
            yield pairs(dataset)
        if dataset.ranking is not None:
            yield ranking(dataset, dataset.ranking)
        yield families(dataset)
        if dataset.family_tests:
            yield family_pairs(dataset)
        if dataset.selection is not None:
            yield selection(dataset, dataset.selection)
        yield costs(dataset)
        if any(result.weights for result in dataset.models):
            yield initial_weights(dataset)
        yield from strata(dataset)
        if any(one.worst for one in dataset.strata):
            yield worst_groups(dataset)
        if dataset.annotators:
            yield annotators(dataset)
        if dataset.external_validation:
            yield external(dataset)
        if dataset.risk_coverage:
            yield risks(dataset)
        if any(result.calibrations for result in dataset.models):
            yield calibrations(dataset)


def across(comparison: Comparison) -> Table:
    names = [dataset.dataset for dataset in comparison.datasets]
    rows = [
        (model, *(percent(numbers.get(name, float("nan"))) for name in (*names, "mean")))
        for model, numbers in comparison.across.items()
    ]
    return Table(
        title="Mean Dice over datasets",
        note="mDSC in %, the mean over folds",
        headings=("model", *names, "mean"),
        rows=tuple(rows),
    )


def overall(dataset: DatasetComparison) -> Table:
    others = {name: key for name, key in STUDY.items() if key != HEADLINE}
    others |= {"class mean of Dice": CLASS_MEAN, "Dice of images": "per_image.dice", **HD95}
    others |= {f"{metric} of images": key for metric, key in added(dataset).items()}
    rows = []
    for result in ordered_by_dice(dataset):
        deviations = seed_deviations(dataset, result.model)
        micro, rest = (spreads(dataset, result.overall, keys, deviations) for keys in ([HEADLINE], others.values()))
        limits = interval(result.intervals.get(HEADLINE), "dice")
        rows.append((result.model, result.family, *micro, limits, *rest, folds(result)))
    note = (
        "mDSC, mIoU, mPrec, mRec: counts summed over a fold's cases and foreground classes; class mean: the mean over the "
        "classes of the Dice of each one's summed counts; Dice and HD95 of images: the mean over cases, then over classes. In "
        f"% (HD95 in {dataset.unit}), mean ± deviation over folds; interval of mDSC: {dataset.units}s drawn within each fold; "
        f"{_HD95_NOTE}"
    ) + f"; {SEEDS_NOTE}" * bool(dataset.seeds)
    first = next(iter(STUDY))
    headings = (
        "model", "family", *with_seeds(dataset, [first]), f"95 % of {first}", *with_seeds(dataset, others), "folds",
    )  # fmt: skip
    return Table(title=f"Models on {dataset.dataset}", note=note, headings=headings, rows=tuple(rows))


def per_class(dataset: DatasetComparison) -> Table:
    keys = {"Dice": "pooled.dice", "Dice of images": "per_image.dice", **HD95, "NSD": "per_image.nsd"}
    if any("per_image.cldice" in numbers for result in dataset.models for numbers in result.classes.values()):
        keys["clDice"] = "per_image.cldice"
    keys |= added(dataset)
    rows = []
    for name in dataset.classes:
        for result in ordered_by_dice(dataset):
            estimates = result.classes[name]
            deviations = seed_deviations(dataset, result.model, name)
            rows.append((name, result.model, *spreads(dataset, estimates, keys.values(), deviations)))
    units = f"in % (HD95 in {dataset.unit}; NSD within {dataset.tolerance:g} {dataset.unit})"
    note = f"{units}, mean ± deviation over folds; {_HD95_NOTE}" + f"; {SEEDS_NOTE}" * bool(dataset.seeds)
    headings = ("class", "model", *with_seeds(dataset, keys))
    return Table(title=f"Classes of {dataset.dataset}", note=note, headings=headings, rows=tuple(rows), keys=2)


def has_objects(dataset: DatasetComparison) -> bool:
    """Whether the scores are of a release that counts objects."""
    return any("pooled.object_f1" in numbers for result in dataset.models for numbers in result.classes.values())


def objects(dataset: DatasetComparison) -> Table:
    rows = []
    for name in dataset.classes:
        for result in ordered_by_dice(dataset):
            deviations = seed_deviations(dataset, result.model, name)
            rows.append((name, result.model, *spreads(dataset, result.classes[name], OBJECTS.values(), deviations)))
    note = f"{OBJECTS_NOTE}; mean ± deviation over folds" + f"; {SEEDS_NOTE}" * bool(dataset.seeds)
    headings = ("class", "model", *with_seeds(dataset, OBJECTS))
    title = f"Areas, borders and objects of {dataset.dataset}"
    return Table(title=title, note=note, headings=headings, rows=tuple(rows), keys=2)


def pairs(dataset: DatasetComparison) -> Table:
    return _tests(dataset, f"Pairs on {dataset.dataset}", dataset.tests)


def family_pairs(dataset: DatasetComparison) -> Table:
    return _tests(dataset, f"Pairs of families on {dataset.dataset}", dataset.family_tests)


def _tests(dataset: DatasetComparison, title: str, tests: Sequence[PairTest]) -> Table:
    rows = []
    for test in sorted(tests, key=lambda test: test.p_adjusted):
        low, high = (points(value, dataset.metric) for value in (test.difference.low, test.difference.high))
        verdict = "differ" if test.p_adjusted < 0.05 else "no significant difference"
        mean = points(test.difference.mean, dataset.metric)
        effect = f"{test.effect:+.2f}" if is_defined(test.effect) else "–"
        values = (mean, f"{low} to {high}", effect, p_value(test.p), p_value(test.p_adjusted))
        rows.append((f"{test.first} - {test.second}", *values, verdict))
    note = (
        f"two-sided Wilcoxon signed-rank tests over {tests[0].units} {dataset.units}s, corrected by Holm; 5 %; effect size: "
        "rank-biserial correlation, 1 if the first is higher everywhere, -1 if the second is"
    )
    headings = ("pair", f"difference of {dataset.metric}", "95 % interval", "effect size", "p", "p corrected", "verdict")
    return Table(title=title, note=note, headings=headings, rows=tuple(rows))


def ranking(dataset: DatasetComparison, one: Ranking) -> Table:
    tested = {result.model: result.case_mean for result in dataset.models}
    factor = display_factor(dataset.metric)
    rows = [
        (
            name, str(place), f"{factor * tested[name].mean:.1f}", interval(tested[name], dataset.metric),
            f"{one.mean_ranks[name]:.2f}", f"{one.first[name]:.0%}",
        )
        for place, name in enumerate(one.order, start=1)
    ]  # fmt: skip
    groups = "; ".join(", ".join(group) for group in one.cliques) or "none"
    what = f"{dataset.metric} of {dataset.units}s"
    note = (
        f"by the mean {what}, which is what is tested, with the 95 % interval of this mean; first: fraction of bootstrap "
        f"samples where a model is first; mean ranks differ at 5 % from {one.critical_difference:.2f} (Nemenyi), so no "
        f"significant difference within: {groups}"
    )
    if is_defined(one.friedman_p):
        note += f"; equality of all models: p {p_value(one.friedman_p)} (Friedman)"
    if is_defined(one.tau):
        note += f"; Kendall's tau between this ranking and those of bootstrap samples: {one.tau:.2f}"
    headings = ("model", "place", what, "95 % interval", "mean rank", "first")
    return Table(title=f"Ranking on {dataset.dataset}", note=note, headings=headings, rows=tuple(rows))


def families(dataset: DatasetComparison) -> Table:
    rows = [
        (
            one.family,
            ", ".join(one.models),
            percent(one.mean),
            percent(one.std),
            one.best,
            f"{one.mean_parameters / 1e6:.1f} M" if is_defined(one.mean_parameters) else "–",
            f"{one.mean_training_seconds / 60:.1f} min" if is_defined(one.mean_training_seconds) else "–",
            f"{one.mean_latency * 1000:.0f} ms" if is_defined(one.mean_latency) else "–",
        )
        for one in dataset.families
    ]
    note = "mean and deviation over models of their mDSC in %; parameters, training time of a fold, latency: means over models"
    return Table(
        title=f"Families on {dataset.dataset}",
        note=note,
        headings=("family", "models", "mDSC", "deviation", "best", "parameters", "training", "latency"),
        rows=tuple(rows),
    )


def selection(dataset: DatasetComparison, one: Selection) -> Table:
    steps = "; ".join(f"{name}: {text}" for name, text in one.postprocessing.items()) or "none"
    return Table(
        title=f"Choice of autoseg_find_best on {dataset.dataset}",
        note=one.note,
        headings=("models", "post-processing", "Dice of the cases it was chosen on", "of cases the choice did not see"),
        rows=((" + ".join(one.models), steps, percent(one.dice), percent(one.nested_dice)),),
    )


def initial_weights(dataset: DatasetComparison) -> Table:
    rows = []
    for result in ordered_by_dice(dataset):
        for one in result.weights:
            licence, data = one.licence or "not known", one.trained_on or "not known"
            rows.append((result.model, data, licence, one.file, one.sha256[:16]))
        if not result.weights and result.cost is not None:
            rows.append((result.model, "random weights" if not result.pretrained else result.pretrained, "", "", ""))
    note = "the files that the trainings started from, with the first digits of their SHA-256"
    headings = ("model", "trained on", "licence", "file", "SHA-256")
    return Table(title=f"Initial weights on {dataset.dataset}", note=note, headings=headings, rows=tuple(rows))


def costs(dataset: DatasetComparison) -> Table:
    rows, energies = [], [energy_text(result.cost.energy) for result in dataset.models if result.cost is not None]
    for result in ordered_by_dice(dataset):
        cost = result.cost
        if cost is None:
            continue
        peak = max(cost.peak_memory, cost.peak_device_memory)
        memory = format_bytes(peak) if peak else f"{format_bytes(cost.planned_memory)} planned"
        rows.append(
            (
                result.model,
                result.variant,
                f"{cost.parameters / 1e6:.2f} M",
                f"{cost.flops / 1e9:.2f} G",
                f"{cost.input_size[0]} x {cost.input_size[1]}",
                memory,
                f"{cost.epoch_seconds:.1f} s" if cost.epoch_seconds else f"{cost.training_seconds:.0f} s in all",
                *([energy_text(cost.energy) or "–"] if any(energies) else []),
                f"{cost.latency * 1000:.0f} ms" if cost.latency else "not recorded",
                f"{cost.device}, {cost.precision}",
            )
        )
    note = (
        "FLOPs: one image's forward pass; memory: the peak of the training process; latency: the network's time, the median "
        "over held-out images"
    )
    energy = ["energy of a fold"] if any(energies) else []
    if energy:
        note += f"; {ENERGY_NOTE}"
    headings = (
        "model", "variant", "parameters", "FLOPs", "input", "memory", "time per epoch", *energy, "latency", "device, precision",
    )  # fmt: skip
    return Table(title=f"Cost on {dataset.dataset}", note=note, headings=headings, rows=tuple(rows))


def strata(dataset: DatasetComparison) -> Iterator[Table]:
    for one in dataset.strata:
        rows = []
        for stratum in one.strata:
            for model, score in stratum.scores.items():
                rows.append((stratum.name, str(len(stratum.cases)), model, *_stratum_cells(score)))
        headings = ("stratum", "cases", "model", "Dice", "95 % interval", *HD95, "left out")
        yield Table(
            title=f"{dataset.dataset} by {one.by}",
            note=f"{one.rule}; per-image means ± deviation, interval: of the mean Dice, HD95 in {dataset.unit}; {_HD95_NOTE}",
            headings=headings,
            rows=tuple(rows),
            keys=3,
        )


def worst_groups(dataset: DatasetComparison) -> Table:
    rows = [
        (
            one.by, model, f"{percent(worst.all_dice.mean)} ({interval(worst.all_dice, 'dice')})", str(worst.all_cases),
            worst.group, f"{percent(worst.dice.mean)} ({interval(worst.dice, 'dice')})", str(worst.cases),
            points(worst.dice.mean - worst.all_dice.mean, "dice"),
        )
        for one in dataset.strata
        for model, worst in one.worst.items()
    ]  # fmt: skip
    note = (
        "mean Dice of images in %, with its 95 % interval; groups of fewer than 5 cases are not called the worst; the lowest "
        "of several groups is low by chance too"
    )
    headings = ("by", "model", "all cases", "n", "worst group", "Dice of images", "its n", "difference")
    return Table(title=f"Worst groups on {dataset.dataset}", note=note, headings=headings, rows=tuple(rows), keys=2)


def added(dataset: DatasetComparison) -> dict[str, str]:
    """Metrics of other packages in the scores of any model: name -> key of the mean over images."""
    metrics = {key.partition(".")[2] for result in dataset.models for key in result.overall}
    return {metric: f"per_image.{metric}" for metric in sorted(metrics - set(BUILT_IN_METRICS))}


def _stratum_cells(score: StratumScore) -> Sequence[str]:
    def cell(mean: float, std: float, factor: float) -> str:
        return f"{factor * mean:.1f} ± {factor * std:.1f}" if is_defined(mean) else "–"

    distances = (cell(score.hd95, score.hd95_std, 1), cell(score.hd95_diagonal, score.hd95_diagonal_std, 1))
    limits = interval(Interval(score.dice, score.dice_low, score.dice_high), "dice")
    return cell(score.dice, score.dice_std, 100), limits, *distances, str(score.undefined)
