"""A secret in every attribute of DICOM files, and in their names, is searched in everything that autoseg writes and prints."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image as Pillow
import pytest
import tifffile
from PIL.PngImagePlugin import PngInfo

from autoseg import api
from autoseg.cli import audit, compare, convert, evaluate, explain, export, find_best, plan_and_preprocess, predict, train
from autoseg.io import deidentify, read_image, read_label, segmentation, write_image
from autoseg.io.raw_dataset import RawDataset
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Workspace
from tests import generated
from tests.io.scans import scan
from tests.security.patients import DATE, ID, NAME, SECRETS, leaks, secret_scan

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
MODEL = "unet"
SETTINGS = {
    "training.epochs": 1, "training.folds": 2, "training.search_epochs": 0, f"models.{MODEL}.input_size": "64x64",
    f"models.{MODEL}.batch_size": 4, f"models.{MODEL}.variant": "16",
}  # fmt: skip
FORM = re.compile(r"case_[0-9a-f]{12}(_\d+)?")


def write_hospital(folder: Path, cases: int = 8) -> tuple[Path, Path]:
    """DICOM images in a folder for each patient, all names identifying, and masks of the same names."""
    images, masks = folder / "images", folder / "masks"
    for index in range(cases):
        pixels, mask = generated.draw("heart", index)
        name = f"{NAME.replace('^', '_')}_{DATE}_{index}"
        gray = (pixels // 64).astype(np.uint8)
        secret_scan(images / f"ward {index // 2}" / f"{name}.dcm", gray, PatientID=f"{ID}-{index // 2}")
        (masks / f"ward {index // 2}").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(masks / f"ward {index // 2}" / f"{name}.png"), mask)
    (images / f"notes on {NAME}").write_text("no image")
    return images, masks


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, Path]]:
    """Images, masks, and a workspace in which a network was trained on them."""
    folder = tmp_path_factory.mktemp("hospital")
    images, masks = write_hospital(folder / "archive")
    root = folder / "outputs" / "root"
    yield images, masks, root


def say(text: str) -> None:
    """Nothing that identifies somebody may be printed."""
    assert not [secret for secret in SECRETS if secret in text.lower()]


def test_nothing_that_is_written_or_printed_holds_a_secret(
    hospital: tuple[Path, Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    images, masks, root = hospital
    outputs, where = root.parent, ["--root", str(root)]
    names = "background,right_ventricle,myocardium,left_ventricle"
    settings = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    folders = ["folders", "--images", str(images), "--masks", str(masks), "--name", "Heart", "--labels", names]
    given = ["-i", str(images), "--recursive", "-m", MODEL, *where]
    extras = ["--probabilities", "--overlays", "--review-list", "--references", str(masks)]
    commands = [
        lambda: convert.main([*where, *folders]),
        lambda: plan_and_preprocess.main(["501", *where, "--protocol", "quick", "--models", MODEL, *settings, "--explain"]),
        lambda: train.main(["501", MODEL, "all", *where, "--pretrained", "none"]),
        lambda: find_best.main(["501", *where]),
        lambda: export.main(["501", MODEL, "-o", str(outputs / "bundle.zip"), *where]),
        lambda: compare.main(["501", *where]),
        lambda: audit.main(["501", *where]),
        lambda: explain.main(["501", MODEL, "0", *where]),
        lambda: predict.main([*given, "-d", "501", "-o", str(outputs / "seg"), *extras]),
        lambda: predict.main([*given, "-d", "501", "-o", str(outputs / "png"), "--dicom-masks", "png", *extras]),
        lambda: predict.main([*given[:3], "--bundle", f"{outputs}/bundle.zip", "-o", f"{outputs}/nii", "--dicom-masks", "nii"]),
        lambda: evaluate.main([str(outputs / "png"), str(root / "raw" / "Dataset501_Heart" / "labelsTr")]),
    ]  # fmt: skip
    for number, command in enumerate(commands):
        code = command()
        printed = "".join(capfd.readouterr())
        assert code == 0, f"{number}: {printed}"
        say(printed)
    written = [path.relative_to(outputs).as_posix() for path in outputs.rglob("*") if path.is_file()]
    for needed in (
        "plan.json", "run.json", "report.html", "gallery.html", "conversion.json", "sources.json", "prediction.json",
        "scores.csv", "explanation.json", "bundle.zip", "review.csv", "best.json", "metrics.csv", ".npz",
        "contact_sheet.png", "seg/case_",
    ):  # fmt: skip
        assert any(needed in path for path in written), needed
    assert sum(path.endswith(".dcm") for path in written) == 8
    assert not leaks(outputs)


def test_patients_stay_together_although_nobody_can_read_their_names(hospital: tuple[Path, Path, Path]) -> None:
    images, masks, root = hospital
    report = api.convert_folders(images, masks, "Wards", root=root, dry_run=True)
    assert len(set(report.spec.groups.values())) == 4 and set(report.spec.groups.values()) == {
        f"patient_{number:03d}" for number in range(1, 5)
    }
    by_ward: dict[str, set[str]] = {}
    for stem, case in report.renamed.items():
        by_ward.setdefault(stem.partition("/")[0], set()).add(report.spec.groups[case])
    assert all(len(groups) == 1 for groups in by_ward.values())
    assert any("grouped by the id of their patient" in note for note in report.notes)
    # The same groups by an expression on the files' own names, with numbers for what it matches.
    given = api.convert_folders(images, masks, "Wards", root=root, dry_run=True, groups=r"(ward \d+)/")
    assert given.spec.groups == report.spec.groups


def test_a_case_is_called_as_its_prediction(hospital: tuple[Path, Path, Path]) -> None:
    images, masks, root = hospital
    report = api.convert_folders(images, masks, "Wards", root=root, dry_run=True)
    assert report.renamed == {
        path.relative_to(images).with_suffix("").as_posix(): deidentify.pseudonym(path) for path in images.rglob("*.dcm")
    }


def test_the_user_gets_the_table_of_names_only_where_asked(
    hospital: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, masks, _ = hospital
    root, table = tmp_path / "root", tmp_path / "private" / "names.csv"
    folders = ["--root", str(root), "folders", "--images", str(images), "--masks", str(masks), "--name", "Heart"]
    assert convert.main([*folders, "--names-table", str(root / "raw" / "names.csv")]) == 2
    assert "do not share" in capsys.readouterr().err and not root.exists()
    assert convert.main([*folders, "--names-table", str(table)]) == 0
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    cases = {case.name for case in RawDataset.open(Workspace.at(root).dataset("Heart")).cases}
    assert {row["case"] for row in rows} == cases and all(FORM.fullmatch(case) for case in cases)
    assert all(row["file"].startswith("ward ") and "Erika" in row["file"] for row in rows)
    assert table.stat().st_mode & 0o077 == 0
    assert not leaks(root)
    assert convert.main([*folders, "--names-table", str(table)]) == 2, "the dataset exists: no table is written"
    assert "--overwrite" in capsys.readouterr().err


def test_names_are_kept_deliberately(hospital: tuple[Path, Path, Path], tmp_path: Path) -> None:
    images, masks, _ = hospital
    report = api.convert_folders(images, masks, "Kept", root=tmp_path, names="keep")
    cases = [case.name for case in RawDataset.open(report.dataset).cases]
    assert len(cases) == 8 and all("Zwetschgenmus_Erika" in case for case in cases)
    source = next(images.rglob("*.dcm"))
    shape = pydicom.dcmread(source).pixel_array.shape
    segmentation.write(tmp_path / "s.dcm", np.ones(shape, np.uint8), source, {1: "cyst"}, keep_patient=True)
    written = pydicom.dcmread(tmp_path / "s.dcm")
    assert written.PatientName == NAME and written.PatientID.startswith(ID) and written.PatientBirthDate == DATE
    with pytest.raises(AutosegError, match="one of auto, keep, hide"):
        api.convert_folders(images, masks, "Kept", root=tmp_path, names="all", overwrite=True)  # type: ignore[arg-type]


def test_pictures_named_after_patients_and_all_where_asked(tmp_path: Path) -> None:
    """Without DICOM only dates, carets and UIDs are recognised."""
    for index, name in enumerate(["Mustermann^Hans", "1961-03-04 left", "1.2.840.113619.2.5", "polyp_7"]):
        image, mask = generated.draw("lesion", index)
        for folder, array in (("images", image), ("masks", mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / folder / f"{name}.png"), array)
    for names, hidden in (("auto", 3), ("hide", 4), ("keep", 0)):
        report = api.convert_folders(tmp_path / "images", tmp_path / "masks", "P", root=tmp_path, names=names, dry_run=True)
        assert sum(bool(FORM.fullmatch(case)) for case in report.renamed.values()) == hidden
        if names == "auto":
            assert not any("Mustermann" in note or "1961" in note for note in report.notes)


def test_hidden_names_that_hold_patients_are_told_before_they_are_gone(tmp_path: Path) -> None:
    for index in range(6):
        image, mask = generated.draw("lesion", index)
        for folder, array in (("images", image), ("masks", mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / folder / f"2020-01-31_patient{index // 2:02d}_frame{index % 2}.png"), array)
    report = api.convert_folders(tmp_path / "images", tmp_path / "masks", "P", root=tmp_path / "root", dry_run=True)
    assert any("--overwrite --groups" in note and "3 groups" in note for note in report.notes)
    given = api.convert_folders(
        tmp_path / "images", tmp_path / "masks", "P", root=tmp_path / "root", dry_run=True, groups=r"(patient\d+)"
    )
    assert sorted(set(given.spec.groups.values())) == ["patient_001", "patient_002", "patient_003"]


def test_layouts_with_dicom_images_hide_names_too(tmp_path: Path) -> None:
    source = tmp_path / "set"
    for index in range(3):
        image, mask = generated.draw("lesion", index)
        scan(source / "images" / f"{NAME}_{index}.dcm", np.ascontiguousarray(image[..., 0]), PatientName=NAME)
        (source / "lesion").mkdir(exist_ok=True)
        cv2.imwrite(str(source / "lesion" / f"{NAME}_{index}.png"), mask)
    report = api.convert("mask_per_class", source, "Layout", root=tmp_path / "root")
    assert len(report.renamed) == 3 and all(FORM.fullmatch(case) for case in report.renamed.values())
    assert not leaks(tmp_path / "root")
    kept = api.convert("mask_per_class", source, "Kept", root=tmp_path / "root", names="keep", dry_run=True)
    assert all(case.startswith("Zwetschgenmus") for case in kept.renamed.values())


def test_texts_inside_the_files_of_hidden_cases_stay_behind(tmp_path: Path) -> None:
    """PNG, TIFF and NIfTI files hold texts of other programs; usually they are copied byte for byte."""
    image, mask = generated.draw("lesion", 0)
    gray = np.ascontiguousarray(image[..., 0])
    text = PngInfo()
    text.add_text("PatientName", NAME)
    for ending in (".png", ".tif", ".nii.gz"):
        folder = tmp_path / ending.strip(".")
        for place in ("images", "masks"):
            (folder / place).mkdir(parents=True)
        path = folder / "images" / f"{NAME}{ending}"
        if ending == ".png":
            Pillow.fromarray(gray).save(path, pnginfo=text)
        elif ending == ".tif":
            tifffile.imwrite(path, gray, description=NAME)
        else:
            write_image(path, gray[None])
            content = bytearray(gzip.decompress(path.read_bytes()))
            content[148 : 148 + len(NAME)] = NAME.encode()  # The field "descrip".
            path.write_bytes(gzip.compress(bytes(content)))
        assert leaks(folder)
        write_image(folder / "masks" / f"{NAME}{ending}", mask[None])
        report = api.convert_folders(folder / "images", folder / "masks", "Set", root=folder / "root")
        assert not leaks(folder / "root")
        (case,) = RawDataset.open(report.dataset).cases
        assert (read_image(case.images[0]).array[0] == gray).all() and FORM.fullmatch(case.name)


def test_functional_groups_are_filtered_too(tmp_path: Path) -> None:
    """Groups of a frame may hold comments and private attributes next to its position."""

    def item(**tags: Any) -> Any:
        content = pydicom.Dataset()
        content.PatientName, content.ImageComments = NAME, "qsecretq"
        content.private_block(0x0011, "QSECRETQ", create=True).add_new(1, "LO", NAME)
        for name, value in tags.items():
            setattr(content, name, value)
        return content

    frames = [
        item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, z])], FrameContentSequence=[item(FrameComments=NAME)])
        for z in range(3)
    ]
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.5], SliceThickness=2)],
    )
    source = secret_scan(
        tmp_path / "in" / "a.dcm", np.zeros((3, 20, 30), np.uint16), mr=True, SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1",
        PerFrameFunctionalGroupsSequence=frames, SharedFunctionalGroupsSequence=[shared],
    )  # fmt: skip
    segmentation.write(tmp_path / "out" / "s.dcm", np.ones((20, 30), np.uint8), source, {1: "cyst"}, frame=1)
    assert not leaks(tmp_path / "out")
    geometry = read_label(tmp_path / "out" / "s.dcm").geometry
    assert geometry is not None and geometry.origin == (0, 0, 1) and geometry.spacing == (0.5, 0.5, 2)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("mr", [False, True])
def test_segmentations_take_only_what_is_allowed(tmp_path: Path, frames: int, mr: bool) -> None:
    """In place of a list of forbidden attributes: everything in the object is the standard's, autoseg's, geometry, or a UID."""
    pixels = np.zeros((20, 30), np.uint8) if frames == 1 else np.zeros((frames, 20, 30), np.uint8)
    pixels = pixels.astype(np.uint16) if mr else pixels
    source = secret_scan(tmp_path / "in" / "a.dcm", pixels, mr=mr, StudyInstanceUID="QSECRETQ.1")
    mask = np.zeros((20, 30), np.uint8)
    mask[4:9, 5:20] = 1
    out = tmp_path / "out" / "s.dcm"
    segmentation.write(out, mask, source, {1: "Läsion 肝"}, frame=1 if frames > 1 else None)
    assert not leaks(tmp_path / "out")
    written = pydicom.dcmread(out)
    assert (read_label(out).array == mask).all() and written.SegmentSequence[0].SegmentLabel == "Läsion 肝"
    assert written.StudyInstanceUID.is_valid and written.PatientName == "" and written.StudyDate == ""
    origin = pydicom.dcmread(source)
    (referred,) = written.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert referred.ReferencedSOPInstanceUID == origin.SOPInstanceUID
