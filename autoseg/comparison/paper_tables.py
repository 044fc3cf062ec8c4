"""The tables of a paper: rounded numbers, and captions that say what a reader needs to judge them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from autoseg.comparison.cells import display_factor, ordered_by_dice, seed_deviations, tested_metric
from autoseg.comparison.paper_cells import (
    Cell,
    Column,
    PaperTable,
    Spread,
    centre,
    factor_of,
    half_width,
    limits,
    spread,
)
from autoseg.comparison.rounding import decimals, rounded, rounded_p
from autoseg.comparison.tables import ENERGY_NOTE, HD95, OBJECTS, OBJECTS_NOTE, STUDY, added, has_objects
from autoseg.metrics.rules import is_defined
from autoseg.schema.comparison import (
    CLASS_MEAN,
    Comparison,
    DatasetComparison,
    Estimate,
    Interval,
    PairTest,
    Ranking,
    Stratification,
    StratumScore,
)
from autoseg.schema.frame import count
from autoseg.schema.run import choices_text, energy_text

# The tables in the order of a paper.
KEYS = (
    "models", "images", "classes", "objects", "pairs", "family_pairs", "ranking", "cost", "seeds", "annotators", "strata",
    "worst_groups",
)  # fmt: skip
_ROUNDED = "Rounded by the deviation or half the interval, else to three digits."


def paper_tables(comparison: Comparison) -> Iterator[PaperTable]:
    """All tables, by dataset, in the order of `KEYS`. Texts are names as they are: whoever writes them escapes them."""
    for dataset in comparison.datasets:
        yield _models(dataset)
        yield _images(dataset)
        yield _classes(dataset)
        if has_objects(dataset):
            yield _objects(dataset)
        if dataset.tests:
            yield _pairs(dataset, "pairs", "Pairs of models", dataset.tests)
        if dataset.family_tests:
            yield _pairs(dataset, "family_pairs", "Pairs of families", dataset.family_tests)
        if dataset.ranking is not None:
            yield _ranking(dataset, dataset.ranking)
        if any(result.cost for result in dataset.models):
            yield _cost(dataset)
        if dataset.seeds:
            yield _seeds(dataset)
        if dataset.annotators:
            yield _annotators(dataset)
        for one in dataset.strata:
            yield _strata(dataset, one)
        if any(one.worst for one in dataset.strata):
            yield _worst_groups(dataset)


def made_with(dataset: DatasetComparison) -> str:
    """n, folds, seeds, and which choices saw the cases: the part that all captions have."""
    found = dataset.conditions
    folds = sorted({fold for result in dataset.models for fold in result.folds})
    parts = [f"n = {count(dataset.cases, 'case')}"]
    if dataset.units == "group" and dataset.tests:
        parts[0] += f", tested as {count(dataset.tests[0].units, 'group')}"
    if folds:
        parts.append(f"fold{'s' * (len(folds) > 1)} {', '.join(map(str, folds))}")
    if found.seeds:
        seeds = ", ".join(map(str, found.seeds))
        parts.append(f"seed{'s' if len(found.seeds) > 1 else ''} {seeds}, one training of each model and fold")
    seen = choices_text(found.saw_scored_cases) if found.seeds else "which choices saw the scored cases is not recorded"
    parts.append(seen)
    if found.unknown:
        parts.append(f"of {', '.join(found.unknown)} this is not known")
    if found.unequal:
        parts.append("the runs are not equal, so that their order does not rank the models")
    return f"{'; '.join(parts)}."


def _models(dataset: DatasetComparison) -> PaperTable:
    rows: list[tuple[Cell, ...]] = []
    for result in ordered_by_dice(dataset):
        first, *others = STUDY.values()
        of_first, rest = (
            _spreads(dataset, result.overall, keys, seed_deviations(dataset, result.model), result.intervals)
            for keys in ([first], others)
        )
        rows.append((result.model, *of_first, limits(result.intervals.get(first)), *rest))
    first, *others = STUDY
    text = (
        f"{count(len(dataset.models), 'model')}: Dice (mDSC), IoU, precision and recall from the pixel counts summed over a "
        f"fold's cases and foreground classes ({', '.join(dataset.classes)}), in %, as mean ± sample standard deviation over "
        f"folds; 95 % bootstrap interval of mDSC, {dataset.units}s drawn within each fold"
    )
    columns = (_NAME, *_columns(dataset, [first]), Column("95 % interval", "limits"), *_columns(dataset, others))
    return _table(dataset, "models", "Models", text + _over_seeds(dataset), columns, rows)


def _images(dataset: DatasetComparison) -> PaperTable:
    keys = {"class mean of Dice": CLASS_MEAN, "Dice of images": "per_image.dice", **HD95, "NSD": "per_image.nsd"}
    keys |= added(dataset)
    if len(dataset.classes) == 1:
        # It equals mDSC.
        del keys["class mean of Dice"]
    rows: list[tuple[Cell, ...]] = [
        (result.model, *_spreads(dataset, result.overall, keys.values(), seed_deviations(dataset, result.model)))
        for result in ordered_by_dice(dataset)
    ]
    text = "Scores of single images: means over the cases"
    if len(dataset.classes) > 1:
        text += ", then over the classes (class mean: the mean over the classes of the Dice of each one's summed counts)"
    text += f", as mean ± sample standard deviation over folds; {_units(dataset)}{_over_seeds(dataset)}"
    return _table(dataset, "images", "Scores of images", text, (_NAME, *_columns(dataset, keys)), rows)


def _classes(dataset: DatasetComparison) -> PaperTable:
    keys = {"Dice": "pooled.dice", "Dice of images": "per_image.dice", **HD95, "NSD": "per_image.nsd"}
    if any("per_image.cldice" in numbers for result in dataset.models for numbers in result.classes.values()):
        keys["clDice"] = "per_image.cldice"
    keys |= added(dataset)
    rows: list[tuple[Cell, ...]] = [
        (
            name, result.model,
            *_spreads(dataset, result.classes[name], keys.values(), seed_deviations(dataset, result.model, name)),
        )
        for name in dataset.classes
        for result in ordered_by_dice(dataset)
    ]  # fmt: skip
    text = (
        "Scores of each class: Dice of the pixel counts summed over a fold's cases, the others are means over the cases; mean "
        f"± sample standard deviation over the folds where it is defined; {_units(dataset)}{_over_seeds(dataset)}"
    )
    columns = (Column("class", "name"), _NAME, *_columns(dataset, keys))
    return _table(dataset, "classes", "Classes", text, columns, rows)


def _objects(dataset: DatasetComparison) -> PaperTable:
    rows: list[tuple[Cell, ...]] = [
        (
            name, result.model,
            *_spreads(dataset, result.classes[name], OBJECTS.values(), seed_deviations(dataset, result.model, name)),
        )
        for name in dataset.classes
        for result in ordered_by_dice(dataset)
    ]  # fmt: skip
    text = f"Areas, borders and objects of each class, {OBJECTS_NOTE}; mean ± sample standard deviation over folds"
    text += _over_seeds(dataset)
    columns = (Column("class", "name"), _NAME, *_columns(dataset, OBJECTS))
    return _table(dataset, "objects", "Areas, borders and objects", text, columns, rows)


def _pairs(dataset: DatasetComparison, key: str, title: str, tests: Sequence[PairTest]) -> PaperTable:
    factor, rows = display_factor(dataset.metric), []
    for test in sorted(tests, key=lambda test: test.p_adjusted):
        rows.append((
            test.first, test.second, centre(test.difference, factor, signed=True),
            limits(test.difference, factor, signed=True), f"{test.effect:+.2f}" if is_defined(test.effect) else "",
            rounded_p(test.p), rounded_p(test.p_adjusted),
        ))  # fmt: skip
    unit = "percentage points" if factor != 1.0 else _unit_of(dataset)
    what = f"the first minus the second, mean over {count(tests[0].units, dataset.units)} of the {tested_metric(dataset)}"
    if key == "family_pairs":
        what += " averaged over each family's models"
    text = (
        f"{title}: {what}, in {unit}, with its 95 % bootstrap interval; effect size: rank-biserial correlation; p of two-sided "
        f"Wilcoxon signed-rank tests, and corrected by Holm for {count(len(tests), 'pair')}"
    )
    columns = (
        Column("first", "name"), Column("second", "name"), Column("difference"), Column("95 % interval", "limits"),
        Column("effect size"), Column("p"), Column("p corrected"),
    )  # fmt: skip
    return _table(dataset, key, title, text, columns, rows)


def _ranking(dataset: DatasetComparison, one: Ranking) -> PaperTable:
    tested, factor = {result.model: result.case_mean for result in dataset.models}, display_factor(dataset.metric)
    rows = [
        (
            name, str(place), centre(tested[name], factor), limits(tested[name], factor),
            f"{one.mean_ranks[name]:.2f}", f"{100 * one.first[name]:.0f}",
        )
        for place, name in enumerate(one.order, start=1)
    ]  # fmt: skip
    unit = "%" if factor != 1.0 else _unit_of(dataset)
    groups = "; ".join(", ".join(group) for group in one.cliques) or "no two models"
    text = (
        f"Ranking by the mean {tested_metric(dataset)} over {dataset.units}s, in {unit}, with its 95 % bootstrap interval; "
        "first: % of bootstrap samples in which the model is first; critical difference of mean ranks "
        f"{one.critical_difference:.2f} (Nemenyi, 5 %), not reached within: {groups}"
    )
    if is_defined(one.friedman_p):
        text += f"; Friedman's test: p {rounded_p(one.friedman_p)}"
    columns = (
        _NAME, Column("place"), Column(tested_metric(dataset)), Column("95 % interval", "limits"), Column("mean rank"),
        Column("first"),
    )  # fmt: skip
    return _table(dataset, "ranking", "Ranking", text, columns, rows)


def _cost(dataset: DatasetComparison) -> PaperTable:
    costs = {result.model: result.cost for result in ordered_by_dice(dataset) if result.cost is not None}
    recorded = all(max(cost.peak_memory, cost.peak_device_memory) for cost in costs.values())
    rows = []
    for name, cost in costs.items():
        memory = max(cost.peak_memory, cost.peak_device_memory) if recorded else cost.planned_memory
        counted = (cost.parameters / 1e6, cost.flops / 1e9)
        measured = (memory / 2**30, cost.training_seconds / 60, 1000 * cost.latency)
        numbers = [rounded(one, decimals(one, digits=3)) if one else "" for one in counted]
        numbers += [rounded(one, decimals(one, digits=2)) if one else "" for one in measured]
        size = f"{cost.input_size[0]} x {cost.input_size[1]}"
        energy = [energy_text(cost.energy)] if any(one.energy for one in costs.values()) else []
        rows.append((name, *numbers[:2], size, *numbers[2:], *energy))
    devices = " and ".join(dict.fromkeys(f"{cost.device}, {cost.precision}" for cost in costs.values()))
    memory_text = "peak of the training process" if recorded else "as planned for training"
    text = (
        f"Cost: parameters in millions; GFLOPs of one image's forward pass; memory in GiB, {memory_text}; "
        "training in minutes, the mean over folds; latency in ms, the median over predicted images of the network's time "
        f"({devices})"
    )
    known = any(cost.energy for cost in costs.values())
    text += f"; {ENERGY_NOTE}" * known
    columns = (
        _NAME, Column("parameters"), Column("GFLOPs"), Column("input", "name"), Column("memory"), Column("training"),
        Column("latency"), *([Column("energy", "name")] * known),
    )  # fmt: skip
    return _table(dataset, "cost", "Cost", text, columns, rows)


def _seeds(dataset: DatasetComparison) -> PaperTable:
    rows: list[tuple[Cell, ...]] = []
    for one in dataset.seeds:
        over_seeds = spread(Estimate(mean=one.mean, std=one.std, folds={}))
        places = decimals(100 * one.mean, 100 * one.std)
        each = ", ".join(f"{seed}: {rounded(100 * value, places)}" for seed, value in zip(one.seeds, one.values, strict=True))
        over_folds = rounded(100 * one.fold_std, decimals(100 * one.fold_std, 100 * one.fold_std))
        rows.append((one.model, each, over_seeds, over_folds, ", ".join(map(str, one.folds))))
    text = (
        "mDSC over seeds, in %: of each seed the mean over the folds that all its seeds have; mean ± sample standard deviation "
        "over these; fold deviation: that over folds, the mean over seeds. Means and tests of the other tables are of one seed"
    )
    columns = (
        _NAME, Column("seed: mDSC", "name"), Column("over seeds", "spread"), Column("fold deviation"), Column("folds", "name"),
    )  # fmt: skip
    return _table(dataset, "seeds", "Seeds", text, columns, rows)


def _annotators(dataset: DatasetComparison) -> PaperTable:
    factor, rows = display_factor(dataset.metric), list[tuple[Cell, ...]]()
    for one in dataset.annotators:
        numbers = (one.first, one.second, one.both, one.people)
        rows.append((
            one.model, str(one.cases), *(centre(interval, factor) for interval in numbers),
            centre(one.difference, factor, signed=True), limits(one.difference, factor, signed=True),
        ))  # fmt: skip
    unit = "%" if factor != 1.0 else _unit_of(dataset)
    text = (
        f"Agreement with two annotators: mean {tested_metric(dataset)} over {dataset.units}s, in {unit}, of cases that both "
        "drew: each model with the dataset's masks, with the second annotator's, and the mean of both; the annotators with "
        "each other; difference: both minus the annotators, with its 95 % bootstrap interval"
    )
    columns = (
        _NAME, Column("n"), Column("with the first"), Column("with the second"), Column("both"), Column("annotators"),
        Column("difference"), Column("95 % interval", "limits"),
    )  # fmt: skip
    return _table(dataset, "annotators", "Agreement with two annotators", text, columns, rows)


def _strata(dataset: DatasetComparison, one: Stratification) -> PaperTable:
    rows: list[tuple[Cell, ...]] = []
    for stratum in one.strata:
        for model, score in stratum.scores.items():
            dice, *distances = _stratum_cells(score, len(stratum.cases))
            interval = limits(Interval(score.dice, score.dice_low, score.dice_high))
            rows.append((
                one.by, stratum.name, str(len(stratum.cases)), model, dice, interval, *distances, str(score.undefined),
            ))  # fmt: skip
    text = (
        f"Strata by {one.by}: {one.rule}; mean ± standard deviation over images, rounded by the standard error; 95 % "
        f"bootstrap interval of the mean Dice; left out: images without a defined HD95; {_percent_and_hd95(dataset)}"
    )
    columns = (
        Column("by", "name", only_csv=True), Column("stratum", "name"), Column("n"), _NAME, Column("Dice of images", "spread"),
        Column("95 % interval", "limits"), *(Column(key, "spread") for key in HD95), Column("left out"),
    )  # fmt: skip
    return _table(dataset, "strata", f"Strata by {one.by}", text, columns, rows)


def _worst_groups(dataset: DatasetComparison) -> PaperTable:
    rows = []
    for one in dataset.strata:
        for model, worst in one.worst.items():
            change = 100 * (worst.dice.mean - worst.all_dice.mean)
            rows.append((
                one.by, model, str(worst.all_cases), centre(worst.all_dice, 100.0), limits(worst.all_dice), worst.group,
                str(worst.cases), centre(worst.dice, 100.0), limits(worst.dice),
                rounded(change, decimals(change, 100 * half_width(worst.dice)), signed=True),
            ))  # fmt: skip
    text = (
        "The worst group and all cases: mean Dice of images over cases, in %, with its 95 % bootstrap interval, and the "
        "difference of the two in percentage points; groups of fewer than 5 cases are not called the worst, and the lowest of "
        "several groups is low by chance too"
    )
    columns = (
        Column("by", "name"), _NAME, Column("n"), Column("Dice of all"), Column("95 % of all", "limits"),
        Column("worst group", "name"), Column("n of it"), Column("Dice of it"), Column("95 % of it", "limits"),
        Column("difference"),
    )  # fmt: skip
    return _table(dataset, "worst_groups", "Worst groups", text, columns, rows)


_NAME = Column("model", "name")


def _table(
    dataset: DatasetComparison, key: str, title: str, text: str, columns: Sequence[Column], rows: Iterable[Sequence[Cell]]
) -> PaperTable:
    return PaperTable(
        key=key,
        dataset=dataset.dataset,
        title=f"{title} on {dataset.dataset}",
        caption=f"{dataset.dataset}. {text}. {made_with(dataset)} {_ROUNDED}",
        columns=tuple(columns),
        rows=tuple(tuple(row) for row in rows),
    )


def _columns(dataset: DatasetComparison, names: Iterable[str]) -> Iterator[Column]:
    """Of numbers with their deviation over folds, in a comparison with several seeds each with that over seeds next to it."""
    for name in names:
        yield Column(name, "spread")
        if dataset.seeds:
            yield Column(f"{name}, seeds")


def _spreads(
    dataset: DatasetComparison, estimates: Mapping[str, Estimate], keys: Iterable[str], over_seeds: Mapping[str, float],
    intervals: Mapping[str, Interval] | None = None,
) -> Iterator[Cell]:
    """The cells below `_columns`. The deviation over seeds is rounded as that over folds."""
    for key in keys:
        factor, estimate, deviation = factor_of(key), estimates.get(key), over_seeds.get(key, math.nan)
        yield spread(estimate, factor, half_width((intervals or {}).get(key)))
        if dataset.seeds:
            known = estimate is not None and is_defined(deviation)
            uncertain = max(estimate.std, deviation) if estimate is not None and is_defined(estimate.std) else deviation
            places = decimals(factor * estimate.mean, factor * uncertain) if known and estimate is not None else 0
            yield rounded(factor * deviation, places) if known else ""


def _over_seeds(dataset: DatasetComparison) -> str:
    """What the columns of seeds are, with the seeds of each model."""
    if not dataset.seeds:
        return ""
    several = ", ".join(f"{one.model}: {len(one.seeds)} ({', '.join(map(str, one.seeds))})" for one in dataset.seeds)
    return f"; seeds: the sample standard deviation over seeds of the mean over folds, of {several}"


def _percent_and_hd95(dataset: DatasetComparison) -> str:
    return f"in %, HD95 in {dataset.unit}, where a class is in one mask only: left out, or the image's diagonal"


def _units(dataset: DatasetComparison) -> str:
    return f"{_percent_and_hd95(dataset)}; NSD within {dataset.tolerance:g} {dataset.unit}"


def _unit_of(dataset: DatasetComparison) -> str:
    return dataset.unit if dataset.metric in ("hd95", "hd95_diagonal", "hd95_pooled", "asd") else "its own unit"


def _stratum_cells(score: StratumScore, cases: int) -> Iterator[Spread]:
    numbers = ((score.dice, score.dice_std, 100.0, 0), (score.hd95, score.hd95_std, 1.0, score.undefined),
               (score.hd95_diagonal, score.hd95_diagonal_std, 1.0, 0))  # fmt: skip
    for mean, deviation, factor, missing in numbers:
        # The deviation has the divisor n, so the standard error has n - 1.
        error = deviation / math.sqrt(max(1, cases - missing - 1))
        places = decimals(factor * mean, factor * error)
        yield Spread(rounded(factor * mean, places), rounded(factor * deviation, places))
