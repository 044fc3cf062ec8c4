import cv2
import numpy as np
import pytest

from autoseg.io import write_image
from autoseg.prediction import ood_detection
from autoseg.prediction.files import predict_files
from autoseg.prediction.inference_metadata import InferenceMetadata, merge
from autoseg.prediction.predictor import Predictor
from autoseg.schema.dataset import DatasetSpec
from tests.generated import draw
from tests.prediction.stand_in import trained

RNG = np.random.default_rng(0)


def scene(index, gray=True):
    image, _ = draw("lesion", index)
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] if gray else image


def training(gray=True, **options):
    options.setdefault("spacing", None)
    return ood_detection.appearance([ood_detection.measure(scene(index, gray), (480, 640), **options) for index in range(12)])


def warned(image, size=(500, 600), spacing=None, known=None, **options):
    return " / ".join(ood_detection.warnings(ood_detection.measure(image, size, spacing, **options), known or training()))


@pytest.mark.parametrize("index", range(20, 32))
def test_images_of_the_same_kind_raise_no_warning(index):
    assert warned(scene(index)) == "" and warned(scene(index, False), known=training(False)) == ""


def test_what_is_unlike_is_named():
    image = scene(20)
    assert "brighter than" in warned(np.clip(image.astype(int) + 90, 0, 255).astype(np.uint8))
    assert "darker than" in warned((image * 0.2).astype(np.uint8))
    assert "flatter than" in warned((image * 0.1 + 130).astype(np.uint8))
    assert "more blurred" in warned(cv2.GaussianBlur(image, (0, 0), 4)[..., None])
    noise = np.clip(image + RNG.normal(0, 60, image.shape), 0, 255).astype(np.uint8)
    assert "noisier" in warned(noise)
    assert "smaller than" in warned(image, (60, 60)) and "larger than" in warned(image, (5000, 4000))
    framed = image.copy()
    framed[: len(image) // 2] = 0
    assert "with more border" in warned(framed)


def test_colour_and_gray():
    assert "all training images were gray" in warned(scene(20), colour=0.2)
    assert "all training images were in colour" in warned(np.repeat(scene(20), 3, axis=2), known=training(False))
    assert ood_detection.colourfulness(np.zeros((3, 4, 4))) == 0 and ood_detection.colourfulness(np.ones((1, 4, 4))) == 0


def test_measures_of_a_colour_picture_are_what_they_are_called():
    image = RNG.integers(20, 200, (60, 80, 3), dtype=np.uint8)
    measures, values = ood_detection.measure(image, (60, 80), None), image.astype(float)
    assert measures["colour"] == pytest.approx(np.ptp(values, axis=2).mean() / np.ptp(values), rel=1e-4)
    assert measures["brightness"] == pytest.approx(values.mean(), rel=1e-4)
    assert measures["contrast"] == pytest.approx(values.mean(axis=2).std(), rel=1e-4)
    assert measures["darkest"] == pytest.approx(np.percentile(values.mean(axis=2), 1), abs=5)
    assert ood_detection.measure(np.repeat(image[..., :1], 3, axis=2), (60, 80), None)["colour"] == 0


def test_spacing():
    known = training(spacing=(0.5, 0.5))
    assert warned(scene(20), spacing=(0.5, 0.5), known=known) == ""
    assert "coarser than" in warned(scene(20), spacing=(1.5, 1.5), known=known)
    assert "pixel size in mm" in warned(scene(20), known=known)


def test_spans_of_several_folds_are_united():
    first = ood_detection.appearance([ood_detection.measure(scene(0), (100, 100), None)])
    second = ood_detection.appearance([ood_detection.measure(scene(1), (300, 300), (1.0, 1.0))])
    both = merge([first, second])
    assert both.measures["size"].low == 100 and both.measures["size"].high == 300 and "spacing" not in both.measures
    assert merge([]) is None


def test_warnings_reach_the_record(tmp_path):
    spec = DatasetSpec(channel_names={"0": "us"}, labels={"background": 0, "bright": 1}, numTraining=4, file_ending=".png")
    write_image(tmp_path / "in" / "usual.png", scene(30).transpose(2, 0, 1))
    write_image(tmp_path / "in" / "colour.png", np.ascontiguousarray(scene(31, False).transpose(2, 0, 1)))
    seen = [scene(index) for index in range(12)]
    known = ood_detection.appearance(
        [ood_detection.measure(cv2.resize(one, (64, 64))[..., None], one.shape[:2], None) for one in seen]
    )
    report = predict_files(
        Predictor([trained(spec=spec)], metadata=InferenceMetadata(known)), tmp_path / "in", tmp_path / "out"
    )
    warnings = {case.case: " ".join(case.warnings) for case in report.record.cases}
    assert "all training images were gray" in warnings["colour"]
    assert "training" not in warnings["usual"]
