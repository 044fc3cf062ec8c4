import cv2
import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from autoseg.inference.engine import Engine
from autoseg.inference.large_image import can_stream, stream
from autoseg.io import read_label, write_image
from autoseg.io.tiff_reader import ArrayRows, TiffRows, count_pixels
from autoseg.prediction import large_image
from autoseg.prediction.files import predict_files
from autoseg.prediction.predictor import Predictor
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.plan import Normalisation
from tests.prediction.stand_in import Bright, plan_of, trained

RNG = np.random.default_rng(3)
IMAGE = RNG.integers(0, 255, (3, 37, 41)).repeat(6, 1).repeat(5, 2).astype(np.uint8)  # 222 x 205


class Local(nn.Module):
    """Its answer at a pixel depends on the neighbourhood and on where in the tile it lies, as a real network's does."""

    def forward(self, x):
        lean = torch.linspace(-1, 1, x.shape[-1]).expand(len(x), 1, *x.shape[-2:])
        mean = nn.functional.avg_pool2d(x.mean(1, keepdim=True), 5, 1, 2, count_include_pad=False)
        return torch.cat([lean, 3 * (mean - 0.4)], 1)


def engine_of(**options):
    member = trained(Local(), geometry="patch", size=(64, 48), batch=3, **options)
    return Engine(member.network, member.model_plan, member.preprocessing, member.scheme)


def test_streamed_rows_are_what_the_whole_image_gives():
    engine, pixels = engine_of(), np.moveaxis(IMAGE, 0, 2)
    parts = list(stream(engine, pixels.shape[:2], lambda start, stop: pixels[start:stop]))
    assert torch.allclose(torch.cat(parts, 1), engine.probabilities([np.ascontiguousarray(pixels)])[0], atol=1e-5)
    assert max(part.shape[1] for part in parts) <= 64 and len(parts) > 4


def test_streaming_takes_statistics_of_the_whole_image(monkeypatch):
    engine, pixels = engine_of(), np.ascontiguousarray(np.moveaxis(IMAGE, 0, 2))
    scheme = Normalisation(scheme="image", lower=(10.0,) * 3, upper=(240.0,) * 3)
    engine.model_plan = (
        plan_of(geometry="patch", size=(64, 48))
        .models["bright"]
        .__class__(**{**vars(engine.model_plan), "normalisation": scheme})
    )
    parts = list(stream(engine, pixels.shape[:2], lambda start, stop: pixels[start:stop]))
    assert torch.allclose(torch.cat(parts, 1), engine.probabilities([pixels])[0], atol=1e-4)


def test_what_cannot_be_streamed():
    whole = trained(Local(), size=(64, 48))
    assert not can_stream(Engine(whole.network, whole.model_plan, whole.preprocessing, whole.scheme), (500, 500))
    assert can_stream(engine_of(), (64, 48)) and not can_stream(engine_of(), (63, 500))


@pytest.mark.parametrize(
    "options",
    [{}, {"tile": (32, 48)}, {"rowsperstrip": 7}, {"tile": (32, 48), "compression": "zlib"}, {"byteorder": ">"}],
    ids=["plain", "tiles", "strips", "deflated tiles", "big endian"],
)
@pytest.mark.parametrize("kind", ["gray 16", "colour"])
def test_rows_of_a_tiff_are_those_of_the_image(tmp_path, kind, options):
    values = IMAGE[0].astype(np.uint16) * 250 if kind == "gray 16" else np.moveaxis(IMAGE, 0, 2)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb" if kind == "colour" else "minisblack", **options)
    expected = ArrayRows(values[None] if kind == "gray 16" else IMAGE)
    with TiffRows.open(tmp_path / "a.tif") as rows:
        assert (rows.size, rows.channels) == (expected.size, expected.channels)
        for start, stop in ((0, 20), (15, 100), (100, 101), (3, 222)):
            assert np.array_equal(rows.rows(start, stop), expected.rows(start, stop))


def test_other_files_are_not_read_by_rows(tmp_path):
    write_image(tmp_path / "a.png", IMAGE)
    (tmp_path / "b.tif").write_bytes(b"II*\0 nonsense")
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((3, 20, 20), np.uint8), photometric="minisblack")
    assert TiffRows.open(tmp_path / "a.png") is None and TiffRows.open(tmp_path / "b.tif") is None
    assert TiffRows.open(tmp_path / "c.tif") is None
    turned = [(274, "H", 1, 6, False)]
    tifffile.imwrite(tmp_path / "d.tif", np.moveaxis(IMAGE, 0, 2), photometric="rgb", extratags=turned)
    assert TiffRows.open(tmp_path / "d.tif") is None
    assert count_pixels(tmp_path / "a.png") == 222 * 205 and count_pixels(tmp_path / "b.tif") == 0
    assert count_pixels(tmp_path / "a.nii.gz") == 0


@pytest.mark.parametrize("geometry", ["patch", "resize"])
@pytest.mark.parametrize("ending", [".tif", ".png"])
def test_large_images_give_the_masks_and_confidence_of_small_ones(tmp_path, monkeypatch, geometry, ending):
    image = cv2.GaussianBlur(np.moveaxis(IMAGE, 0, 2), (0, 0), 3).transpose(2, 0, 1)
    write_image(tmp_path / "in" / f"a{ending}", image)
    networks = (Local(), Bright(0.55))
    members = [trained(network, fold, geometry=geometry, size=(64, 48)) for fold, network in enumerate(networks)]
    predictor = Predictor(members)
    usual = predict_files(predictor, tmp_path / "in", tmp_path / "usual", overlays=True)
    monkeypatch.setattr(large_image, "LARGE", 1)
    monkeypatch.setattr(large_image, "_BAND_PIXELS", 205 * 17)
    banded = predict_files(predictor, tmp_path / "in", tmp_path / "banded", overlays=True, probabilities=True)
    first, second = (read_label(tmp_path / name / f"a{ending}").array for name in ("usual", "banded"))
    assert first.shape == second.shape and (first == second).mean() > 0.999 and 0.1 < first.mean() < 0.9
    one, other = (report.record.cases[0] for report in (usual, banded))
    # Large images are judged at their own size, others at the network's.
    assert other.confidence.value == pytest.approx(one.confidence.value, abs=1e-3 if geometry == "patch" else 0.05)
    assert other.confidence.agreement == pytest.approx(one.confidence.agreement, abs=1e-3 if geometry == "patch" else 0.05)
    assert other.warnings[-1] == "too large: probabilities were not written"
    assert (tmp_path / "banded" / "overlays" / "a.png").is_file()


@pytest.mark.parametrize("ending", [".tif", ".png"])
def test_a_large_colour_picture_becomes_gray_for_a_network_of_gray_ones(tmp_path, monkeypatch, ending):
    write_image(tmp_path / "in" / f"a{ending}", IMAGE)
    gray = DatasetSpec(channel_names={"0": "us"}, labels={"background": 0, "bright": 1}, numTraining=4, file_ending=".png")
    predictor = Predictor([trained(Bright(0.5), spec=gray, size=(64, 48))])
    predict_files(predictor, tmp_path / "in", tmp_path / "usual")
    monkeypatch.setattr(large_image, "LARGE", 1)
    monkeypatch.setattr(large_image, "_BAND_PIXELS", 205 * 17)
    predict_files(predictor, tmp_path / "in", tmp_path / "banded")
    first, second = (read_label(tmp_path / name / f"a{ending}").array for name in ("usual", "banded"))
    assert (first == second).mean() > 0.999 and 0.01 < first.mean() < 0.99


def test_a_damaged_large_image_is_reported(tmp_path, monkeypatch):
    write_image(tmp_path / "in" / "good.png", IMAGE)
    options = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"}
    tifffile.imwrite(tmp_path / "in" / "bad.tif", np.moveaxis(IMAGE, 0, 2), **options)
    data = (tmp_path / "in" / "bad.tif").read_bytes()
    (tmp_path / "in" / "bad.tif").write_bytes(data[:2000] + bytes(1000) + data[3000:])
    monkeypatch.setattr(large_image, "LARGE", 1)
    report = predict_files(Predictor([trained(Local(), geometry="patch", size=(64, 48))]), tmp_path / "in", tmp_path / "out")
    assert report.cases == ("good",) and set(report.failed) == {"bad"}
