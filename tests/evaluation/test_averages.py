"""The four numbers of the first study (arXiv 2603.13044), class means and means over images: three different averages."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest

from autoseg.cli import evaluate
from autoseg.evaluation.case import class_score
from autoseg.evaluation.evaluate import evaluate_folders
from autoseg.evaluation.summary import summarise
from autoseg.io import write_label
from autoseg.metrics.overlap import Counts
from autoseg.metrics.surface import UNDEFINED_SURFACE
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.plan import PreprocessingConfig
from autoseg.schema.scores import CaseScore, Scores

# NeoPolyp in the study: Dice of the non-neoplastic and the neoplastic class, mDSC, and the mean of the two classes, in %.
PUBLISHED = {
    "VW-MiT": (66.1, 92.7, 89.7, 79.4),
    "InternImage": (66.0, 92.9, 89.6, 79.5),
    "Swin-UMamba": (59.2, 92.5, 88.9, 75.8),
    "HiFormer": (52.7, 88.9, 84.6, 70.8),
    "MISSFormer": (42.0, 87.5, 82.9, 64.8),
    "U-KAN": (36.9, 87.1, 82.5, 62.0),
    "U-Net": (34.9, 88.1, 83.3, 61.5),
}
PIXELS = 10_000_000
SPEC = DatasetSpec(
    channel_names={"0": "R"}, labels={"background": 0, "rare": 1, "common": 2}, numTraining=3, file_ending=".png"
)


def counts(dice: float, pixels: int) -> Counts:
    """Counts with this Dice (%), of predicted and reference pixels together; two thirds of the errors are false negatives."""
    tp = round(pixels * dice / 200)
    wrong = pixels - 2 * tp
    return Counts(tp, wrong // 3, wrong - wrong // 3)


def in_parts(count: Counts, parts: int) -> list[Counts]:
    """The same pixels as several images have them, unevenly."""
    shares = [Counts(*(number // (2 + index) for number in (count.tp, count.fp, count.fn))) for index in range(parts - 1)]
    rest = Counts(*(getattr(count, name) - sum(getattr(one, name) for one in shares) for name in ("tp", "fp", "fn")))
    return [*shares, rest]


def scores_of(rare: Counts, common: Counts) -> Scores:
    """Scores of three images with these counts in all."""
    classes = {"rare": in_parts(rare, 3), "common": in_parts(common, 3)}
    cases = [
        CaseScore(f"case{index}", {name: class_score(parts[index], UNDEFINED_SURFACE, {}) for name, parts in classes.items()})
        for index in range(3)
    ]
    return summarise(cases, "px")


@pytest.mark.parametrize("model", PUBLISHED)
def test_counts_with_the_published_dice_of_classes_give_the_published_mdsc(model):
    """What part of the pixels each class has is not published: it follows from the three numbers, and must be about the same
    for all models, since they were scored on the same images."""
    rare, common, mdsc, class_mean = PUBLISHED[model]
    weight = (mdsc - rare) / (common - rare)
    assert 0.87 < weight < 0.915
    scores = scores_of(counts(rare, round((1 - weight) * PIXELS)), counts(common, round(weight * PIXELS)))
    assert scores.classes["rare"].pooled["dice"] == pytest.approx(rare / 100, abs=1e-6)
    assert scores.classes["common"].pooled["dice"] == pytest.approx(common / 100, abs=1e-6)
    assert scores.overall["micro.dice"] == pytest.approx(mdsc / 100, abs=1e-6)
    # Published with one digit: the class mean is what autoseg once showed as mDSC.
    assert scores.overall["class_mean.dice"] == pytest.approx(class_mean / 100, abs=0.00051)


def test_the_four_micro_averages_are_of_the_summed_counts():
    scores = scores_of(Counts(60, 30, 10), Counts(800, 100, 250))
    assert {name: scores.overall[f"micro.{name}"] for name in ("dice", "iou", "precision", "recall")} == pytest.approx(
        {"dice": 1720 / (1720 + 390), "iou": 860 / 1250, "precision": 860 / 990, "recall": 860 / 1120}
    )
    assert scores.overall["class_mean.iou"] == pytest.approx((60 / 100 + 800 / 1150) / 2)
    assert "pooled.dice" not in scores.overall and {"micro", "class_mean", "per_image"} <= scores.definitions.keys()
    assert repr(scores) == "Scores(3 cases, 2 classes: mDSC 0.815, Dice as class mean 0.785, per image 0.784)"


def test_a_class_in_no_mask_changes_neither_average():
    alone = scores_of(Counts(0, 0, 0), Counts(800, 100, 250)).overall
    assert alone["micro.dice"] == alone["class_mean.dice"] == pytest.approx(1600 / 1950)
    nothing = scores_of(Counts(0, 0, 0), Counts(0, 0, 0)).overall
    assert np.isnan(nothing["micro.dice"]) and np.isnan(nothing["class_mean.dice"])


@pytest.fixture
def folders(tmp_path):
    """Two images, a large class that is mostly right, and a small one that is found in one of them."""
    predictions, references = tmp_path / "pred", tmp_path / "ref"
    for case, found in (("a", True), ("b", False)):
        reference = np.zeros((40, 40), np.uint8)
        reference[:20], reference[30:34, :4] = 2, 1
        prediction = np.zeros_like(reference)
        prediction[:18] = 2
        prediction[30:34, :4] = 1 if found else 0
        write_label(references / f"{case}.png", reference)
        write_label(predictions / f"{case}.png", prediction)
    return predictions, references


def test_masks_give_all_averages_in_every_file(folders, tmp_path):
    scores = evaluate_folders(*folders, SPEC, output=tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "scores_summary.csv").read_text().splitlines()))
    values = {(row["class"], row["averaging"], row["metric"]): row for row in rows}
    # 2 x 720 of 2 x 800 pixels, and 16 of 32.
    micro, rare, common = 2 * 1456 / (2 * 1456 + 160 + 16), 32 / 48, 2880 / 3040
    expected = {
        ("all classes", "micro"): micro, ("all classes", "class_mean"): (rare + common) / 2,
        ("all classes", "per_image"): ((1 + 0) / 2 + common) / 2, ("rare", "pooled"): rare, ("common", "pooled"): common,
    }  # fmt: skip
    for key, value in expected.items():
        assert float(values[(*key, "dice")]["value"]) == pytest.approx(value, abs=1e-6), key
    assert scores.overall["micro.dice"] == pytest.approx(micro)
    spread = values["rare", "per_image", "hd95"]
    assert (float(spread["value"]), float(spread["std"]), spread["undefined"]) == (0.0, 0.0, "1")
    # The class that is missed in one of two images: left out above, the diagonal here.
    diagonal = values["rare", "per_image", "hd95_diagonal"]
    assert (float(diagonal["value"]), diagonal["undefined"]) == (pytest.approx(np.hypot(40, 40) / 2, abs=1e-6), "0")


def test_masks_can_be_compared_at_the_size_of_the_input(folders):
    """A tenth of the side: the small class fills no pixel of it, the large one the upper half."""
    config = PreprocessingConfig(key="x", geometry="resize", dtype="uint8", channels=1, size=(4, 4))
    scores = evaluate_folders(*folders, SPEC, resized=config, write=False)
    assert scores.cases[0].classes["common"].tp + scores.cases[0].classes["common"].fn == 8
    assert scores.cases[0].classes["rare"].fn == 0 and scores.unit == "px"
    assert scores.notes == ("masks were compared at 4 x 4, the size of the network's input",)
    padded = evaluate_folders(*folders, SPEC, resized=replace(config, size=(40, 80), pad=True), write=False)
    whole = evaluate_folders(*folders, SPEC, write=False)
    for longer in ("per_image.hd95_diagonal", "per_image.boundary_iou"):
        assert padded.overall.pop(longer) > whole.overall.pop(longer), "the diagonal is longer, and with it the band"
    assert str(padded.overall) == str(whole.overall), "zeros to both sides change nothing else"


def test_the_table_names_both_averages_of_all_classes(folders, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    (folders[1] / "dataset.json").write_text(
        '{"channel_names": {"0": "R"}, "labels": {"background": 0, "rare": 1, "common": 2}, "numTraining": 2, '
        '"file_ending": ".png"}'
    )
    assert evaluate.main([*map(str, folders)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["all", "classes", "(micro)", "dice", "0.9430"] in lines
    assert ["class", "mean", "dice", "0.8070", "0.7237"] in lines
