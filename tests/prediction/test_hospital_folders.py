"""Folders as hospitals have them: many formats, one bad file, names that tell who is shown, runs that were cut off."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from autoseg.io import deidentify, read_case, read_label, write_image
from autoseg.prediction import pipeline
from autoseg.prediction.files import predict_files
from autoseg.prediction.inputs import find_jobs
from autoseg.prediction.predictor import Predictor
from autoseg.prediction.review_list import review_order, write_review_list
from autoseg.schema.dataset import DatasetSpec
from autoseg.support.errors import AutosegError
from tests.io.scans import scan
from tests.prediction.stand_in import Bright, picture, trained

pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
GRAY = DatasetSpec(channel_names={"0": "ultrasound"}, labels={"background": 0, "bright": 1}, numTraining=4, file_ending=".png")
IMAGE, MASK = picture((40, 60), (8, 10, 30, 50), channels=1)


@pytest.fixture
def folder(tmp_path):
    """One picture in every format."""
    inputs = tmp_path / "in"
    write_image(inputs / "plain.PNG", IMAGE)
    write_image(inputs / "Odd name (2) ä.tif", IMAGE)
    for name in ("a.bmp", "b.nii.gz", "c.mha", "d.nrrd"):
        write_image(inputs / name, IMAGE)
    cv2.imwrite(str(inputs / "e.jpeg"), np.moveaxis(np.repeat(IMAGE, 3, 0), 0, -1), [cv2.IMWRITE_JPEG_QUALITY, 95])
    scan(inputs / "IM0001", IMAGE[0], PatientName="Mustermann^Erika", PatientID="ID 4711-08", StudyDate="20200131")
    scan(inputs / "video.dcm", np.stack([IMAGE[0], IMAGE[0] // 2]), syntax="rle", PatientName="Mustermann^Erika")
    scan(inputs / "negative.dcm", 255 - IMAGE[0], photometric="MONOCHROME1")
    (inputs / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    (inputs / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (inputs / "notes.txt").write_text("no image")
    return inputs


def predicted(folder, output, network=None, **options):
    return predict_files(Predictor([trained(network, spec=GRAY)]), folder, output, **options)


def test_every_format_gives_its_mask_and_one_bad_file_stops_nothing(folder, tmp_path):
    report = predicted(folder, tmp_path / "out", names="keep")
    assert set(report.failed) == {"corrupt"}
    outputs = {case.case: case.output for case in report.record.cases}
    assert outputs == {
        "plain": "plain.png",
        "Odd name (2) ä": "Odd name (2) ä.tif",
        "a": "a.bmp",
        "b": "b.nii.gz",
        "c": "c.mha",
        "d": "d.nrrd",
        "e": "e.png",
        "IM0001": "IM0001.dcm",
        "video_f0001": "video_f0001.dcm",
        "video_f0002": "video_f0002.dcm",
        "negative": "negative.dcm",
    }
    for case in report.record.cases:
        mask = read_label(tmp_path / "out" / case.output).array
        expected = MASK * 0 if case.case == "video_f0002" else MASK
        least = 0.97 if case.case == "e" else 1.0  # JPEG loses values.
        assert mask.shape == MASK.shape and (mask == expected).mean() >= least, case.case
    assert [case.frame for case in report.record.cases if case.case.startswith("video")] == [0, 1]


def test_nothing_told_by_files_or_tags_reaches_names_logs_or_records(folder, tmp_path, caplog, capsys):
    (folder / "Mustermann Erika.png").write_bytes((folder / "plain.PNG").read_bytes())
    (folder / "scan 1961-03-04.png").write_bytes((folder / "plain.PNG").read_bytes() + b"\0")
    (folder / "4711-08_broken.dcm").write_bytes(b"nonsense")
    with caplog.at_level("INFO", logger="autoseg"):
        report = predicted(folder, tmp_path / "out", overlays=True)
    written = [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")]
    record = (tmp_path / "out" / "prediction.json").read_text()
    all_text = "\n".join([*written, record, str(report), caplog.text, capsys.readouterr().err])
    # Each is long or not hexadecimal: the record holds checksums, in which four given digits turn up by chance.
    for secret in ("ustermann", "Erika", "4711-08", "scan 19", "1961-03", "2020-01-31", "20200131"):
        assert secret not in all_text, secret
    assert "plain.png" in written and "Odd name (2) ä.tif" in written
    assert all(b"Mustermann" not in path.read_bytes() for path in (tmp_path / "out").glob("*.dcm"))
    names = [case.case for case in report.record.cases]
    assert deidentify.pseudonym(folder / "IM0001") in names and f"{deidentify.pseudonym(folder / 'video.dcm')}_f0002" in names
    assert report.failed[deidentify.pseudonym(folder / "4711-08_broken.dcm")]


def test_all_names_can_be_hidden(folder, tmp_path):
    report = predicted(folder, tmp_path / "out", names="hide")
    assert all(case.case.startswith("case_") for case in report.record.cases)
    assert deidentify.pseudonym(folder / "plain.PNG") in {case.case for case in report.record.cases}


@pytest.mark.parametrize("name", ["MÜLLER^HANS.png", "us_19610304.png", "04.03.1961.png", "1.2.840.113619.2.5.png"])
def test_telling_names(name):
    assert deidentify.is_identifying(Path(name), set())


@pytest.mark.parametrize("name", ["ISIC_0000013.png", "patient007_slice1.png", "benign (12).png", "21bab9fc7330398846.png"])
def test_names_that_tell_nothing(name):
    assert not deidentify.is_identifying(Path(name), {"mustermann"})


@pytest.mark.parametrize(("kind", "ending"), [("png", ".png"), ("nii", ".nii.gz"), ("seg", ".dcm")])
def test_masks_of_dicom_images_as_wished(folder, tmp_path, kind, ending):
    predicted(folder / "IM0001", tmp_path / "out", names="keep", dicom_masks=kind)
    assert (read_label(tmp_path / "out" / f"IM0001{ending}").array == MASK).mean() > 0.97


def test_a_list_of_files_and_a_strict_run(folder, tmp_path):
    report = predicted([folder / "plain.PNG", folder / "a.bmp"], tmp_path / "out")
    assert report.cases == ("a", "plain")
    with pytest.raises(AutosegError, match=r"corrupt\.png"):
        predicted(folder, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict" / "prediction.json").exists()
    with pytest.raises(AutosegError, match="is a folder, but"):
        find_jobs([folder, folder / "a.bmp"], 1)


class Killed(Exception):
    pass


def test_a_killed_run_goes_on_where_it_was(folder, tmp_path, monkeypatch):
    (folder / "corrupt.png").unlink()
    whole = predicted(folder, tmp_path / "whole").record

    class Dying(Bright):
        def forward(self, x):
            if len(self.batches) == 2:
                raise Killed
            return super().forward(x)

    with pytest.raises(Killed):
        predicted(folder, tmp_path / "out", Dying())
    unfinished = tmp_path / "out" / "prediction.unfinished.jsonl"
    done = [json.loads(line)["case"] for line in unfinished.read_text().splitlines()[1:]]
    assert 0 < len(done) < len(whole.cases) and not (tmp_path / "out" / "prediction.json").exists()
    with unfinished.open("a") as stream:
        stream.write('{"schema_version": 1, "case": "cut o')
    read = []
    monkeypatch.setattr(pipeline, "read_case", lambda paths, frame: read.append(paths) or read_case(paths, frame))
    report = predicted(folder, tmp_path / "out", overwrite=False)
    assert report.record.skipped == tuple(case.case for case in whole.cases if case.case in done)
    assert len(read) == len(whole.cases) - len(done) and not unfinished.exists()
    for one, other in zip(report.record.cases, whole.cases, strict=True):
        assert (one.case, one.pixels, one.confidence.value, one.sha256) == (
            other.case,
            other.pixels,
            other.confidence.value,
            other.sha256,
        )


def test_going_on_with_other_networks_or_changed_images(folder, tmp_path):
    predicted(folder / "a.bmp", tmp_path / "out")
    write_image(folder / "a.bmp", IMAGE // 4)
    report = predicted(folder / "a.bmp", tmp_path / "out", overwrite=False)
    assert report.cases == ("a",) and report.record.cases[0].pixels["bright"] == 0
    other = Predictor([trained(fold=1, spec=GRAY)])
    with pytest.raises(AutosegError, match="masks of another run"):
        predict_files(other, folder / "a.bmp", tmp_path / "out", overwrite=False)


def test_the_review_list_begins_with_what_needs_a_person(folder, tmp_path):
    write_image(folder / "faint.png", IMAGE // 2 + 30)
    report = predicted(folder, tmp_path / "out", names="keep")
    order = [case.case for case in review_order(report.record.cases)]
    assert order[0] == "video_f0002" and order.index("faint") < order.index("plain")
    text = write_review_list(report.record.cases, tmp_path / "out").read_text().splitlines()
    assert text[0] == "case,score,expected_dice,agreement,calibration,warnings"
    assert "not calibrated: needs 10 out-of-fold cases" in text[1] and "nothing was found" in text[1]
    assert len(text) == len(order) + 1
