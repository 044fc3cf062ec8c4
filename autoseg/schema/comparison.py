"""Results of a comparison of models: `comparison.json`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from autoseg.schema.artefact import Artefact, Content, rename
from autoseg.schema.frame import Row, Tabular, count
from autoseg.schema.limits import Count, NonNegative, NonNegativeResult, Result, ShareResult
from autoseg.schema.run import InitialWeights

# The first study's headline: Dice from counts summed over a fold's cases and foreground classes, then the mean over folds.
HEADLINE = "micro.dice"
CLASS_MEAN = "class_mean.dice"


@dataclass(frozen=True)
class Estimate:
    """One number over the folds. mean and std (sample deviation) of those folds where it is defined; folds: fold -> value."""

    mean: Result
    std: Result
    folds: dict[str, Result]


@dataclass(frozen=True)
class Interval:
    """A number (`mean`) and its 95 % bootstrap confidence interval: units (see DatasetComparison) drawn with replacement."""

    mean: Result
    low: Result
    high: Result


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of a model; 0 if a run did not record it.

    flops: floating-point operations of one image's forward pass at input_size (height, width). steps, training_seconds: of
    a fold, the mean over folds; epoch_seconds: of an epoch without validation. peak_memory: bytes of the training process;
    peak_device_memory: bytes of tensors on a CUDA device; planned_memory: bytes the planner measured for training. latency:
    median over images of the network's seconds, an equal part of its batch's; device, precision: of all these. energy: joules
    by part, see `RunRecord`, the mean over folds; only parts that all folds know.
    """

    parameters: Count
    flops: Count
    input_size: tuple[Count, Count]
    steps: Count
    epoch_seconds: NonNegativeResult
    training_seconds: NonNegativeResult
    peak_memory: Count
    peak_device_memory: Count
    planned_memory: Count
    latency: NonNegativeResult
    device: str
    precision: str
    energy: dict[str, NonNegative] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """One model on one dataset. overall: "micro.dice", "class_mean.dice", "per_image.hd95", ... -> estimate; classes: the same
    of each class, "pooled.dice", "per_image.hd95", ... (see Scores).

    intervals: "micro.dice", ... -> of the mean over folds in `overall`, units drawn within each fold. case_mean: mean over
    units of what is tested, the comparison's metric. cost: None for masks of other programs. identities: fold -> of
    its run. calibration: expected calibration error, not-a-number without stored probabilities; calibrations: "ece",
    "near_ece", "brier", "near_brier", means over the folds with stored probabilities. weights: the files that the training
    started from.
    """

    model: str
    title: str
    family: str
    variant: str
    pretrained: str
    folds: tuple[Count, ...]
    cases: Count
    overall: dict[str, Estimate]
    classes: dict[str, dict[str, Estimate]]
    case_mean: Interval
    cost: Cost | None
    calibration: ShareResult = math.nan
    identities: dict[str, str] = field(default_factory=dict)
    weights: tuple[InitialWeights, ...] = ()
    intervals: dict[str, Interval] = field(default_factory=dict)
    calibrations: dict[str, Result] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PairTest:
    """Two models (or families) on the same units: mean of first minus second with its 95 % bootstrap interval; p of the
    two-sided Wilcoxon signed-rank test; p_adjusted: by Holm over all pairs (of models, or of families) of the dataset. effect:
    matched-pairs rank-biserial correlation, not-a-number in older files."""

    first: str
    second: str
    units: Count
    difference: Interval
    p: ShareResult
    p_adjusted: ShareResult
    effect: Result = math.nan


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """order: best mean over units first. mean_ranks: over units, 1 is best. first: fraction of bootstrap samples won.

    tau: mean Kendall tau between the ranking and those of bootstrap samples (1: always the same). friedman_p: of no
    difference at all. critical_difference: of mean ranks (Nemenyi, 5 %). cliques: models no pair of which differs by it.
    """

    order: tuple[str, ...]
    mean_ranks: dict[str, NonNegativeResult]
    first: dict[str, ShareResult]
    tau: Result
    friedman_p: ShareResult
    critical_difference: NonNegativeResult
    cliques: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Models of one family: mean and standard deviation of their micro Dice (means over folds); best: the best model.

    mean_parameters, mean_training_seconds (of a fold), mean_latency (seconds an image): over the trained models; undefined if
    none of them was recorded.
    """

    family: str
    models: tuple[str, ...]
    mean: Result
    std: Result
    best: str
    mean_parameters: NonNegativeResult = math.nan
    mean_training_seconds: NonNegativeResult = math.nan
    mean_latency: NonNegativeResult = math.nan


@dataclass(frozen=True, kw_only=True)
class StratumScore:
    """Per-image means of one model over a stratum, and how many images have no HD95 (see `rule`): hd95 leaves them out,
    hd95_diagonal (not-a-number in older files) has the image's diagonal for a mask that is empty where the other is not.

    dice_low, dice_high: 95 % bootstrap interval of dice, cases (or groups) of the stratum drawn with replacement; undefined in
    older files and with one case or group."""

    dice: ShareResult
    dice_std: NonNegativeResult
    hd95: NonNegativeResult
    hd95_std: NonNegativeResult
    undefined: Count
    hd95_diagonal: NonNegativeResult = math.nan
    hd95_diagonal_std: NonNegativeResult = math.nan
    dice_low: ShareResult = math.nan
    dice_high: ShareResult = math.nan


@dataclass(frozen=True, kw_only=True)
class WorstGroup:
    """A model's stratum of the lowest mean Dice of images among those of at least 5 cases, next to all cases.

    cases, dice: of the stratum `group`; all_cases, all_dice: of all strata together. groups: how many could be the worst.
    """

    group: str
    groups: Count
    cases: Count
    dice: Interval
    all_cases: Count
    all_dice: Interval


@dataclass(frozen=True)
class Stratum:
    """A subset of the cases."""

    name: str
    cases: tuple[str, ...]
    scores: dict[str, StratumScore]


@dataclass(frozen=True)
class Stratification:
    """by: as asked for. rule: in words. worst: model -> its worst group; empty where a model's own Dice makes the strata."""

    by: str
    rule: str
    strata: tuple[Stratum, ...]
    worst: dict[str, WorstGroup] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ExternalValidation:
    """One model on another dataset: Dice as micro average, class mean and per image, and of its own held-out cases with the
    same labels. labels: label of the training data -> of the other dataset."""

    model: str
    external: str
    labels: dict[str, str]
    cases: Count
    internal_micro: Estimate
    external_micro: Estimate
    internal_class_mean: Estimate
    external_class_mean: Estimate
    internal_per_image: Estimate
    external_per_image: Estimate


@dataclass(frozen=True, kw_only=True)
class RiskCoverage:
    """How well a confidence ranks a model's held-out cases. risk: 1 - Dice of the most confident fraction `coverage`; aurc:
    area under this curve; best: of a perfect ranking; random: of no ranking. augrc: of the generalised curve, best_augrc its
    value for a perfect ranking; not-a-number in older files."""

    model: str
    confidence: str
    coverage: tuple[ShareResult, ...]
    risk: tuple[ShareResult, ...]
    aurc: ShareResult
    best: ShareResult
    random: ShareResult
    augrc: ShareResult = math.nan
    best_augrc: ShareResult = math.nan


@dataclass(frozen=True, kw_only=True)
class SeedSpread:
    """Micro Dice of a model's trainings with several seeds. values: of each seed, the mean over `folds`; mean, std: of these;
    fold_std: deviation over folds, the mean over seeds (not-a-number with one fold).

    overall, classes: deviation over seeds of the mean over `folds`, of each number of `ModelResult`; empty in older files."""

    model: str
    seeds: tuple[Count, ...]
    folds: tuple[Count, ...]
    values: tuple[ShareResult, ...]
    mean: ShareResult
    std: NonNegativeResult
    fold_std: NonNegativeResult
    overall: dict[str, NonNegativeResult] = field(default_factory=dict)
    classes: dict[str, dict[str, NonNegativeResult]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AnnotatorAgreement:
    """A model and two annotators, on the `cases` that both drew (`units`: groups, where the dataset has them).

    Means over units of the comparison's metric, with intervals. first: the model with the dataset's masks, second: with the
    second annotator's, both: the mean of these. people: the annotators with each other. difference: both - people.
    """

    model: str
    cases: Count
    units: Count
    first: Interval
    second: Interval
    both: Interval
    people: Interval
    difference: Interval


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What autoseg_find_best chose among `candidates`. dice: of the cases it was chosen on, too high for new ones;
    nested_dice: of cases that the choice did not see; see `BestChoice`. note: the same in words."""

    models: tuple[str, ...]
    postprocessing: dict[str, str]
    candidates: Count
    dice: ShareResult
    nested_dice: ShareResult
    note: str


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What has to be read with the numbers of a dataset. lines: topic -> sentences.

    saw_scored_cases: choices that at least one training made on the cases it is scored on. unknown: models whose trainings are
    not known, masks of other programs. seeds: of the trainings. unequal: whether the runs differ in data, split or budget.
    random, published: models by what their trainings started from. unrecorded: models of whose scored masks it is not known
    whether a choice of post-processing saw the cases.
    """

    saw_scored_cases: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    seeds: tuple[Count, ...] = ()
    unequal: bool = False
    random: tuple[str, ...] = ()
    published: tuple[str, ...] = ()
    unrecorded: tuple[str, ...] = ()
    lines: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DatasetComparison:
    """All models on one dataset. metric: what is tested and ranked, of cases. unit: of distances.

    units: "case", or "group" where the dataset names groups (patients): each counts once, with the mean of its cases.
    family_tests: of every two families, each unit with its mean over the models of a family. notes: differences between the
    runs. selection: None without a best.json. conditions: empty in older files. annotators: empty without a second one. seeds:
    of models with trainings of several seeds.
    """

    dataset: str
    protocol: str
    metric: str
    unit: str
    tolerance: NonNegative
    classes: tuple[str, ...]
    cases: Count
    units: str
    models: tuple[ModelResult, ...]
    tests: tuple[PairTest, ...]
    ranking: Ranking | None
    families: tuple[Family, ...]
    family_tests: tuple[PairTest, ...]
    strata: tuple[Stratification, ...] = ()
    external_validation: tuple[ExternalValidation, ...] = ()
    risk_coverage: tuple[RiskCoverage, ...] = ()
    notes: tuple[str, ...] = ()
    selection: Selection | None = None
    conditions: Conditions = field(default_factory=Conditions)
    annotators: tuple[AnnotatorAgreement, ...] = ()
    seeds: tuple[SeedSpread, ...] = ()


def _to_version_2(content: Content) -> Content:
    for dataset in content["datasets"]:
        rename(dataset, "drops", "external_validation")
    return content


def _to_version_3(content: Content) -> Content:
    """Means over classes have their own name. Micro averages were not stored: they are known where there is one class."""
    several = {dataset["dataset"] for dataset in content["datasets"] if len(dataset["classes"]) > 1}
    for dataset in content["datasets"]:
        for model in dataset["models"]:
            means = {key.replace("pooled.", "class_mean.", 1): value for key, value in model["overall"].items()}
            known = {key: value for key, value in means.items() if key.startswith("class_mean.")}
            micro = {f"micro.{key.partition('.')[2]}": value for key, value in known.items()}
            model["overall"] = (micro if dataset["dataset"] not in several else dict.fromkeys(micro, _UNKNOWN)) | means
        if dataset["dataset"] in several:
            for family in dataset["families"]:
                family.update(mean=None, std=None, best="")
        for one in dataset["external_validation"]:
            for side in ("internal", "external"):
                mean = one.pop(f"{side}_pooled")
                one[f"{side}_class_mean"] = mean
                one[f"{side}_micro"] = mean if len(set(one["labels"].values()) - {"background"}) == 1 else _UNKNOWN
    for row in content["across"].values():
        row.update(dict.fromkeys([*(several & row.keys()), *(["mean"] if several else [])]))
    return content


_UNKNOWN: Content = {"mean": None, "std": None, "folds": {}}


def _to_version_4(content: Content) -> Content:
    """Generalists against specialists was the only test of families."""
    for dataset in content["datasets"]:
        test = dataset.pop("family_test")
        dataset["family_tests"] = [] if test is None else [test]
    return content


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison(Artefact, Tabular):
    """`comparison.json`. across: model -> dataset -> mean over folds of the micro Dice, and "mean" over the datasets."""

    NAME = "comparison"
    VERSION = 4
    MIGRATIONS = (_to_version_2, _to_version_3, _to_version_4)

    datasets: tuple[DatasetComparison, ...]
    across: dict[str, dict[str, Result]]
    rule: str
    definitions: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        best = [f"{one.dataset}: {_best(one)}" for one in self.datasets]
        return "; ".join(best)

    def to_rows(self) -> list[Row]:
        """One row for each dataset and model. Columns that end in _low and _high are 95 % intervals;
        `tested_dice`, or another metric: the mean over units of what is tested."""
        return [_row(dataset, model) for dataset in self.datasets for model in dataset.models]


def _best(dataset: DatasetComparison) -> str:
    # Comparisons of older releases have no micro averages of several classes.
    known = any(not math.isnan(model.overall[HEADLINE].mean) for model in dataset.models)
    key, name = (HEADLINE, "mDSC") if known else (CLASS_MEAN, "Dice as class mean")
    best = max(dataset.models, key=lambda model: _or_last(model.overall[key].mean))
    return f"{count(len(dataset.models), 'model')}, best {best.model} with {name} {best.overall[key].mean:.3f}"


def _or_last(value: float) -> float:
    return -1.0 if math.isnan(value) else value


def _row(dataset: DatasetComparison, model: ModelResult) -> Row:
    micro, unknown = model.overall[HEADLINE], Interval(math.nan, math.nan, math.nan)
    intervals = {"micro_dice": model.intervals.get(HEADLINE, unknown), f"tested_{dataset.metric}": model.case_mean}
    return {
        "dataset": dataset.dataset,
        "model": model.model,
        "family": model.family,
        "folds": len(model.folds),
        "micro_dice": micro.mean,
        "micro_dice_std": micro.std,
        "class_mean_dice": model.overall[CLASS_MEAN].mean,
        f"tested_{dataset.metric}": model.case_mean.mean,
        **{
            f"{name}_{side}": getattr(one, side)
            for name, one in intervals.items()
            for side in ("low", "high")
        },
        "parameters": model.cost.parameters if model.cost else None,
        "latency": model.cost.latency if model.cost else None,
    }
