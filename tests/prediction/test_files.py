import threading

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from autoseg.io import read_image, read_label, write_image, write_label
from autoseg.prediction import pipeline
from autoseg.prediction.files import predict_files
from autoseg.prediction.predictor import Predictor
from autoseg.schema.prediction import PredictionRecord
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact
from autoseg.training.config_hash import digest
from tests.prediction.stand_in import GRAY, Bright, identity_of, picture, trained


@pytest.fixture
def images(tmp_path):
    """Five pictures of different sizes and their masks."""
    masks = {}
    for number in range(5):
        image, mask = picture((40 + 3 * number, 60 + number), (10, 12, 30, 40 + number))
        write_image(tmp_path / "in" / f"case{number}.png", image)
        masks[f"case{number}"] = mask
    return tmp_path / "in", masks


def test_masks_and_record(images, tmp_path):
    folder, masks = images
    predictor = Predictor([trained(fold=0), trained(fold=3)])
    report = predict_files(predictor, folder, tmp_path / "out")
    assert report.cases == tuple(masks) and not report.failed
    assert "5 masks in" in str(report) and "could not" not in str(report)
    for case, mask in masks.items():
        predicted = read_label(tmp_path / "out" / f"{case}.png").array
        assert predicted.shape == mask.shape and (predicted == mask).mean() > 0.98
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [*(f"{case}.png" for case in masks), "prediction.json"]
    record = read_artefact(tmp_path / "out" / "prediction.json", PredictionRecord)
    assert record.models == ("bright",) and record.folds == (0, 3)
    assert record.identities == {f"bright/fold_{fold}": digest(identity_of(fold)) for fold in (0, 3)}
    assert record.cases[1].size == (43, 61) and set(record.cases[1].seconds) == {"read", "network", "write"}
    assert record.cases[1].pixels["bright"] == int(read_label(tmp_path / "out" / "case1.png").array.sum())
    assert set(record.versions) == {"autoseg", "torch", "python"}


@pytest.mark.parametrize("geometry", ["resize", "patch"])
def test_images_share_batches_and_masks_do_not_depend_on_it(images, tmp_path, geometry):
    folder, masks = images
    network = Bright()
    together = Predictor([trained(network, geometry=geometry, batch=4, size=(64, 64))])
    predict_files(together, folder, tmp_path / "together")
    assert network.batches == [4, 1]
    alone = Predictor([trained(geometry=geometry, batch=1, size=(64, 64))])
    predict_files(alone, folder, tmp_path / "alone", workers=1)
    for case in masks:
        first, second = (read_label(tmp_path / name / f"{case}.png").array for name in ("together", "alone"))
        assert np.array_equal(first, second)


def test_a_bad_file_is_reported_and_the_rest_is_done(images, tmp_path):
    folder, _ = images
    (folder / "case1.png").write_bytes(b"nonsense")
    write_image(folder / "narrow.tif", np.zeros((1, 5, 5), np.float32))
    write_image(folder / "deep.png", np.full((3, 5, 5), 4000, np.uint16))
    report = predict_files(Predictor([trained()]), folder, tmp_path / "out")
    assert set(report.failed) == {"case1", "narrow", "deep"}
    assert report.cases == ("case0", "case2", "case3", "case4")
    assert str(folder / "case1.png") in report.failed["case1"]
    assert "values 0..1" in report.failed["narrow"] and str(folder / "deep.png") in report.failed["deep"]
    assert not (tmp_path / "out" / "case1.png").exists()
    assert "3 could not be predicted" in str(report)
    assert read_artefact(tmp_path / "out" / "prediction.json", PredictionRecord).failed == report.failed


def test_medical_geometry_comes_back(tmp_path):
    image, mask = picture(channels=1, dtype=np.uint16)
    source = sitk.GetImageFromArray(image)
    source.SetSpacing((0.3, 0.7, 5.0))
    source.SetOrigin((10.0, -4.0, 2.0))
    (tmp_path / "in").mkdir()
    sitk.WriteImage(source, str(tmp_path / "in" / "slice_0000.nii.gz"))
    report = predict_files(Predictor([trained(spec=GRAY)]), tmp_path / "in", tmp_path / "out")
    assert report.cases == ("slice",)
    written = sitk.ReadImage(str(tmp_path / "out" / "slice.nii.gz"))
    assert written.GetSize() == source.GetSize()
    assert np.allclose(written.GetSpacing(), source.GetSpacing()) and np.allclose(written.GetOrigin(), source.GetOrigin())
    assert (sitk.GetArrayFromImage(written)[0] == mask).mean() > 0.98


def test_probabilities_at_the_image_size(images, tmp_path):
    folder, masks = images
    predict_files(Predictor([trained()]), folder, tmp_path / "out", probabilities=True)
    with np.load(tmp_path / "out" / "case2.npz", allow_pickle=False) as saved:
        maps, names = saved["probabilities"], saved["names"]
    assert maps.shape == (2, *masks["case2"].shape) and maps.dtype == np.float16
    assert list(names) == ["background", "bright"]
    predicted = read_label(tmp_path / "out" / "case2.png").array
    assert ((maps[1] > 0.5) == predicted).mean() > 0.999


def test_overlays_with_references(images, tmp_path):
    folder, masks = images
    write_label(tmp_path / "ref" / "case0.png", masks["case0"])
    predict_files(Predictor([trained()]), folder, tmp_path / "out", overlays=True, references=tmp_path / "ref")
    overlays = {path.stem: read_image(path).array for path in (tmp_path / "out" / "overlays").iterdir()}
    assert set(overlays) == set(masks)
    assert all(picture.shape[0] == 3 and min(picture.shape[1:]) >= 480 for picture in overlays.values())


def test_masks_that_are_there_can_stay(images, tmp_path):
    folder, _ = images
    predictor = Predictor([trained()])
    predict_files(predictor, folder / "case0.png", tmp_path / "out")
    before = (tmp_path / "out" / "case0.png").stat().st_mtime_ns
    report = predict_files(predictor, folder, tmp_path / "out", overwrite=False)
    assert len(report.cases) == 4 and report.record.skipped == ("case0",)
    assert "1 were there already" in str(report)
    assert (tmp_path / "out" / "case0.png").stat().st_mtime_ns == before
    assert "case0" in predict_files(predictor, folder, tmp_path / "out").cases


@pytest.mark.parametrize("damage", ["missing", "empty", "foreign", "zeros"])
def test_masks_that_are_not_as_written_are_made_again(images, tmp_path, caplog, damage):
    folder, masks = images
    out, predictor = tmp_path / "out", Predictor([trained()])
    predict_files(predictor, folder, out)
    if damage == "missing":
        (out / "case1.png").unlink()
    elif damage == "empty":
        (out / "case1.png").write_bytes(b"")
    elif damage == "foreign":
        (out / "case1.png").write_bytes((out / "case2.png").read_bytes())
    else:
        write_label(out / "case1.png", np.zeros(masks["case1"].shape, np.uint8))
    report = predict_files(predictor, folder, out, overwrite=False)
    assert report.cases == ("case1",) and len(report.record.skipped) == 4
    assert "are made again: case1" in caplog.text
    assert (read_label(out / "case1.png").array == masks["case1"]).mean() > 0.98


def test_what_is_asked_for_besides_the_masks_is_made_when_a_run_continues(images, tmp_path):
    folder, masks = images
    predictor = Predictor([trained()])
    predict_files(predictor, folder, tmp_path / "out")
    report = predict_files(predictor, folder, tmp_path / "out", overwrite=False, probabilities=True)
    assert len(report.cases) == len(masks) and (tmp_path / "out" / "case3.npz").is_file()
    (tmp_path / "out" / "case3.npz").unlink()
    again = predict_files(predictor, folder, tmp_path / "out", overwrite=False, probabilities=True, overlays=True)
    assert len(again.cases) == len(masks) and (tmp_path / "out" / "overlays" / "case3.png").is_file()


def test_subfolders_are_kept(images, tmp_path):
    folder, _ = images
    (folder / "deep").mkdir()
    (folder / "case0.png").rename(folder / "deep" / "case0.png")
    report = predict_files(Predictor([trained()]), folder, tmp_path / "out", recursive=True, probabilities=True, overlays=True)
    assert "deep/case0" in report.cases
    for name in ("deep/case0.png", "deep/case0.npz", "overlays/deep/case0.png"):
        assert (tmp_path / "out" / name).is_file()


def test_what_does_not_fit_into_memory_is_tried_alone_and_then_reported(images, tmp_path):
    folder, _ = images

    class Small(Bright):
        def forward(self, x):
            if len(x) > 1 or bool((x > 0.99).any()):
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
            return super().forward(x)

    write_image(folder / "white.png", picture(high=255)[0])
    report = predict_files(Predictor([trained(Small())]), folder, tmp_path / "out")
    assert set(report.failed) == {"white"} and "memory of cpu" in report.failed["white"]
    assert len(report.cases) == 5


def test_other_faults_of_the_network_are_ours_and_stop(images, tmp_path):
    class Broken(Bright):
        def forward(self, x):
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        predict_files(Predictor([trained(Broken())]), images[0], tmp_path / "out")


def test_reading_network_and_writing_overlap(images, tmp_path, monkeypatch):
    threads = {"read": set(), "write": set(), "network": set()}

    def noted(stage, function):
        def call(*arguments, **options):
            threads[stage].add(threading.get_ident())
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(pipeline, "read_case", noted("read", pipeline.read_case))
    monkeypatch.setattr(pipeline, "write_label", noted("write", pipeline.write_label))
    network = Bright()
    network.forward = noted("network", network.forward)
    predict_files(Predictor([trained(network)]), images[0], tmp_path / "out")
    assert threads["network"] == {threading.get_ident()}
    assert threading.get_ident() not in threads["read"] | threads["write"]
    assert threads["read"] and threads["write"] and not threads["read"] & threads["write"]


def test_an_output_that_is_a_file_is_refused(images, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(AutosegError, match="is a file"):
        predict_files(Predictor([trained()]), images[0], tmp_path / "out")
