import numpy as np
import pytest
import torch
from torch import nn

from autoseg.prediction.onnx_file import description
from autoseg.prediction.predictor import Predictor, channels_first
from autoseg.schema.dataset import DatasetSpec
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Dataset
from tests.prediction.stand_in import GRAY, SPEC, Bright, picture, trained, write_fold


def agreement(first, second):
    return (first == second).mean()


@pytest.mark.parametrize("geometry", ["resize", "patch"])
def test_a_mask_has_the_size_of_its_image(geometry):
    image, mask = picture((100, 130), (20, 30, 70, 90))
    predictor = Predictor([trained(geometry=geometry)])
    predicted = predictor(image)
    assert predicted.shape == (100, 130) and predicted.dtype == np.uint8
    assert agreement(predicted, mask) > (0.99 if geometry == "resize" else 0.9999)


@pytest.mark.parametrize("size", [(100, 130), (130, 60), (64, 64), (33, 200)])
def test_padding_is_cut_off_again(size):
    """The network calls all surroundings bright, which no mask may show."""
    image, mask = picture(size, (size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2))
    dark_is_bright = Bright(level=0.5, sharpness=-20.0)
    predictor = Predictor([trained(dark_is_bright, pad=True)])
    predicted = predictor(image)
    assert predicted.shape == size and agreement(predicted, 1 - mask) > 0.96
    maps = predictor.probabilities(image)
    assert maps.shape == (2, *size) and agreement(maps[1] > 0.5, predicted) > 0.999
    # Together with a network that does not pad.
    both = Predictor([trained(dark_is_bright, pad=True), trained(dark_is_bright)])
    assert agreement(both(image), 1 - mask) > 0.96


def test_axes_may_come_in_either_order():
    image, mask = picture()
    image[0] += 7
    predictor = Predictor([trained()])
    first = predictor(image)
    assert np.array_equal(first, predictor(image.transpose(1, 2, 0)))
    assert agreement(first, mask) > 0.99


def test_masks_do_not_depend_on_the_processors_half_precision(monkeypatch):
    """A network planned for bf16 predicts in fp32 on every processor, and says so."""
    image = np.random.default_rng(0).integers(0, 256, (3, 100, 130), dtype=np.uint8)
    planned = [trained(Convolution()), trained(Convolution())]
    for member, precision in zip(planned, ("bf16", "fp32"), strict=True):
        object.__setattr__(member.model_plan, "precision", precision)
    monkeypatch.setattr("autoseg.inference.precision.processor_has_bf16", lambda: True)
    half, full = (Predictor([member]) for member in planned)
    assert np.array_equal(half.probabilities(image), full.probabilities(image))
    assert half.precision == full.precision == "fp32"


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x):
        return self.layer(x)


def test_gray_arrays():
    image, mask = picture(channels=1)
    predictor = Predictor([trained(spec=GRAY)])
    first = predictor(image[0])
    assert agreement(first, mask) > 0.99
    assert np.array_equal(first, predictor(image)) and np.array_equal(first, predictor(image.transpose(1, 2, 0)))


@pytest.mark.parametrize("shape", [(3, 40, 3), (20, 30, 40), (5, 30, 40), (1, 2, 3, 4), (3,)])
def test_axes_that_cannot_be_told_are_refused(shape):
    with pytest.raises(AutosegError, match="not clearly an image of 3 channels"):
        channels_first(np.zeros(shape), 3)


def test_gray_stands_for_colour_and_back():
    assert channels_first(np.zeros((20, 30, 1)), 3).shape == (1, 20, 30)
    assert channels_first(np.zeros((3, 20, 30)), 1).shape == (3, 20, 30)
    gray, mask = picture(channels=1)
    assert agreement(Predictor([trained()])(gray[0]), mask) > 0.99


def test_values_between_0_and_1_are_refused_where_0_to_255_was_seen():
    image, _ = picture()
    predictor = Predictor([trained()])
    with pytest.raises(AutosegError, match="values 0..1"):
        predictor(image.astype(np.float32) / 255)
    assert predictor(image.astype(np.float32)).max() == 1


def test_folds_are_averaged_as_probabilities():
    image, _ = picture(low=115, high=140)
    sure, unsure = Bright(level=0.5, sharpness=50), Bright(level=0.6, sharpness=10)
    members = [trained(sure, 0), trained(unsure, 1)]
    both = Predictor(members).probabilities(image)
    single = [Predictor([member]).probabilities(image) for member in members]
    assert both.shape == (2, 48, 80) and both.dtype == np.float32
    assert np.allclose(both, (single[0] + single[1]) / 2, atol=1e-6)
    assert np.allclose(both.sum(0), 1, atol=1e-5)


def test_members_of_other_sizes_are_brought_together():
    image, mask = picture((90, 120), (20, 20, 60, 80))
    members = [trained(fold=0), trained(fold=1, size=(32, 48)), trained(fold=2, geometry="patch")]
    predictor = Predictor(members)
    assert len(predictor.preprocessing_configs) == 3
    assert agreement(predictor(image), mask) > 0.97


def test_members_for_other_labels_are_refused():
    other = DatasetSpec(
        channel_names=SPEC.channel_names, labels={"background": 0, "dark": 1}, numTraining=4, file_ending=".png"
    )
    with pytest.raises(AutosegError, match="fold 1 of bright and fold 0 of bright"):
        Predictor([trained(fold=0), trained(fold=1, spec=other)])


class Leaning(nn.Module):
    """Believes in class 1 the more the farther right a pixel lies."""

    def forward(self, x):
        lean = torch.linspace(-1, 1, x.shape[-1]).expand(x.shape[0], 1, *x.shape[-2:])
        return torch.cat([-lean, lean], 1)


def test_mirrored_views_are_those_of_the_plan():
    image, _ = picture()
    sideways, never = trained(Leaning(), mirror=(1,)), trained(Leaning(), mirror=())
    assert np.allclose(Predictor([sideways], tta=True).probabilities(image), 0.5, atol=1e-6)
    assert Predictor([sideways], tta=True).mirror == (1,)
    planned = trained(Leaning(), mirror=(1,), tta=True)
    assert np.array_equal(Predictor([planned]).probabilities(image), Predictor([sideways], tta=True).probabilities(image))
    assert Predictor([planned], tta=False).mirror == Predictor([sideways]).mirror == ()
    tilted = Predictor([never], tta=True).probabilities(image)
    assert np.array_equal(tilted, Predictor([sideways]).probabilities(image))
    assert tilted[1, :, -1].min() > 0.8


def test_the_description_of_an_onnx_file_names_the_mirrored_views():
    after = description(trained(mirror=(1,), tta=True)).after
    assert any("mirrored along columns" in text for text in after)
    assert not any("mirrored" in text for text in description(trained(mirror=(1,))).after)


def test_spacing_is_used_and_missed_where_the_plan_needs_it():
    image, mask = picture((60, 90), channels=1)
    predictor = Predictor([trained(spec=GRAY, geometry="patch", size=(32, 32), spacing=(1.0, 1.0))])
    prepared = predictor.prepare(image, (0.5, 2.0))
    assert prepared.arrays[0].shape == (30, 180, 1)
    assert agreement(predictor(image, (0.5, 2.0)), mask) > 0.95
    with pytest.raises(AutosegError, match="this image has no spacing"):
        predictor(image)


def test_loading(tmp_path, bright_is_registered, caplog):
    dataset = Dataset(tmp_path, "Dataset501_Tiny")
    dataset.raw.mkdir(parents=True)
    write_fold(dataset.fold("bright", 0), 0)
    write_fold(dataset.fold("bright", 2), 2, Bright(level=0.9), status="stopped")
    (dataset.fold("bright", 1)).mkdir()
    for where in (dataset, dataset.results, dataset.results / "bright"):
        assert [member.record.fold for member in Predictor.load(where, "bright", device="cpu").members] == [0, 2]
    with caplog.at_level("WARNING", logger="autoseg"):
        named = Predictor.load("tiny", "bright", device="cpu", root=tmp_path)
    assert "fold 2 of bright is not finished (3 of 3 epochs)" in caplog.text and "fold 0" not in caplog.text
    image, mask = picture()
    assert agreement(named(image), mask) > 0.99
    assert Predictor.load(501, "bright", [2], device="cpu", root=tmp_path)(image).max() == 0


def test_loading_says_what_is_not_trained(tmp_path, bright_is_registered):
    dataset = Dataset(tmp_path, "Dataset501_Tiny")
    with pytest.raises(AutosegError, match="no trained fold"):
        Predictor.load(dataset, "bright", device="cpu")
    write_fold(dataset.fold("bright", 0))
    with pytest.raises(AutosegError) as caught:
        Predictor.load(dataset, "bright", [0, 3, 4], device="cpu")
    assert "fold 3" in str(caught.value) and "fold 4" in str(caught.value) and "trained: 0" in str(caught.value)
    with pytest.raises(AutosegError, match="no results folder"):
        Predictor.load(tmp_path / "nowhere", "bright", device="cpu")
