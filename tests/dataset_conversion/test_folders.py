"""Folders of images and masks become a raw dataset: changes are reported, problems are listed, all or nothing."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from autoseg.fingerprint import check_dataset
from autoseg.io import RawDataset, read_image, read_label
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.workspace import Workspace
from dataset_conversion.folders import convert_folders
from tests.dataset_conversion.pictures import box, colours, folders, save


@pytest.fixture
def convert(tmp_path):
    def run(images=tmp_path / "images", masks=tmp_path / "masks", **options):
        return convert_folders(images, masks, "Set", workspace=Workspace(tmp_path / "root"), workers=2, **options)

    return run


def faults(convert, **options):
    with pytest.raises(SeveralProblems) as caught:
        convert(**options)
    return list(caught.value.problems)


def leftovers(tmp_path):
    raw = tmp_path / "root" / "raw"
    return list(raw.iterdir()) if raw.exists() else []


def image(report, case):
    return read_image(report.dataset.raw / "imagesTr" / f"{case}_0000{report.spec.file_ending}").array


def label(report, case):
    return read_label(report.dataset.raw / "labelsTr" / f"{case}{report.spec.file_ending}").array


def test_a_plain_set(tmp_path, convert):
    images, _ = folders(tmp_path, ["a", "b"], value=255)
    report = convert(labels=["background", "polyp"])
    assert report.dataset.name == "Dataset501_Set" and report.cases == 2
    check_dataset(RawDataset.open(report.dataset))
    assert json.loads(report.dataset.description.read_text()) == {
        "artefact": "dataset",
        "schema_version": 1,
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "polyp": 1},
        "numTraining": 2,
        "file_ending": ".png",
        "name": "Set",
    }
    copied = report.dataset.raw / "imagesTr" / "a_0000.png"
    assert copied.read_bytes() == (images / "a.png").read_bytes()
    assert (label(report, "a") == box(1)).all()
    assert "255 became 1" in str(report) and "Dataset501_Set" in str(report)


def test_set_without_changes_has_no_notes(tmp_path, convert):
    folders(tmp_path, ["a", "b"])
    assert convert(labels=["background", "polyp"]).notes == ()


def test_numbers_and_overwriting(tmp_path, convert):
    folders(tmp_path, ["a"])
    assert [convert().dataset.number, convert(number=7).dataset.number] == [501, 7]
    assert convert(number=7).unchanged and not convert(number=7, overwrite=True).unchanged
    folders(tmp_path, ["a", "b"])
    with pytest.raises(AutosegError, match="exists"):
        convert(number=7)
    assert convert(number=7, overwrite=True).cases == 2
    with pytest.raises(AutosegError, match="belongs to Dataset501_Set"):
        convert_folders(tmp_path / "images", tmp_path / "masks", "Other", 501, workspace=Workspace(tmp_path / "root"))


def test_all_problems_are_listed_and_nothing_is_written(tmp_path, convert):
    stems = ["ok", "nomask", "broken", "size", "value", "gray", "alpha", "badmask", "colourmask"]
    images, masks = folders(tmp_path, stems)
    (masks / "nomask.png").unlink()
    save(masks / "spare.png", box())
    (images / "broken.png").write_bytes((images / "broken.png").read_bytes()[:80])
    save(masks / "size.png", box(size=(24, 33)))
    save(masks / "value.png", box(1) + box(9, at=14))
    save(images / "gray.png", colours()[..., 0])
    save(images / "alpha.png", np.dstack([colours(), np.arange(24 * 32, dtype=np.uint8).reshape(24, 32)]))
    (masks / "badmask.png").write_text("no mask")
    save(masks / "colourmask.png", colours())
    lines = faults(convert, labels=["background", "polyp"])
    expected = {
        "nomask.png": "no mask",
        "spare.png": "without an image",
        "broken.png": "cannot be read",
        "masks/size.png": "24 x 33 pixels, but size.png has 24 x 32",
        "value.png": "9 (48 pixels)",
        "gray.png": "gray, while 6 images are RGB",
        "alpha.png": "alpha",
        "badmask.png": "cannot be read",
        "colourmask.png": "colour picture",
    }
    for name, text in expected.items():
        assert [line for line in lines if name in line and text in line], name
    assert len(lines) == len(expected) and leftovers(tmp_path) == []


def test_jpegs_become_png_pixel_for_pixel(tmp_path, convert):
    images, _ = folders(tmp_path, ["a", "b"], image=".jpg")
    report = convert()
    assert report.spec.file_ending == ".png" and any("png instead of jpg (2 files)" in note for note in report.notes)
    assert (image(report, "a") == read_image(images / "a.jpg").array).all()


def test_mixed_endings_and_bit_depths(tmp_path, convert):
    folders(tmp_path, ["a"])
    deep = colours(1).astype(np.uint16) * 200
    cv2.imwrite(str(tmp_path / "images" / "b.tif"), deep[..., ::-1])
    save(tmp_path / "masks" / "b.png", box())
    report = convert()
    assert report.spec.file_ending == ".tif"
    assert (image(report, "b") == deep.transpose(2, 0, 1)).all() and (image(report, "a") == colours(0).transpose(2, 0, 1)).all()


def test_constant_alpha_and_palettes(tmp_path, convert):
    save(tmp_path / "images" / "a.png", np.dstack([colours(), np.full((24, 32), 255, np.uint8)]))
    mask = Pillow.fromarray(box(2) + box(1, at=14), mode="P")
    mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    (tmp_path / "masks").mkdir()
    mask.save(tmp_path / "masks" / "a.png")
    report = convert(labels=["background", "x", "y"])
    assert image(report, "a").shape == (3, 24, 32)
    assert (label(report, "a") == box(2) + box(1, at=14)).all()
    assert any("alpha" in note for note in report.notes) and any("palette" in note for note in report.notes)


def oriented(path, array, orientation):
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    return save(path, array, exif=exif)


@pytest.mark.parametrize("drawn_on", ["upright", "stored"])
def test_exif_orientation_is_applied_to_image_and_mask(tmp_path, convert, drawn_on):
    stored = np.zeros((24, 32, 3), np.uint8)
    stored[box() > 0] = 255
    oriented(tmp_path / "images" / "a.png", stored, 6)
    save(tmp_path / "masks" / "a.png", np.rot90(box(), -1) if drawn_on == "upright" else box())
    # Rotated by 180 degrees, its size is ambiguous: it follows the other image.
    oriented(tmp_path / "images" / "b.png", stored, 3)
    save(tmp_path / "masks" / "b.png", np.rot90(box(), 2) if drawn_on == "upright" else box())
    report = convert()
    for case in "ab":
        assert ((image(report, case)[0] > 0) == (label(report, case) > 0)).all()
    assert image(report, "a").shape == (3, 32, 24)
    assert any("EXIF" in note for note in report.notes)
    assert any("turned with their images" in note for note in report.notes) == (drawn_on == "stored")


def test_ambiguous_exif_orientation_is_refused(tmp_path, convert):
    oriented(tmp_path / "images" / "a.png", colours(), 3)
    save(tmp_path / "masks" / "a.png", box())
    assert "EXIF orientation (3)" in faults(convert)[0]


def test_masks_of_one_class_each(tmp_path, convert):
    save(tmp_path / "images" / "a.png", colours())
    save(tmp_path / "masks" / "a_polyp.png", box(255))
    save(tmp_path / "masks" / "a_tool.png", box(255, at=6))
    report = convert(labels=["background", "polyp", "tool"])
    assert (label(report, "a") == np.where(box(1, at=6), 2, box(1))).all()
    assert any("24 pixels of 1 images belong to two classes" in note for note in report.notes)


def test_several_masks_of_one_class_are_merged(tmp_path, convert):
    save(tmp_path / "images" / "a (1).png", colours())
    save(tmp_path / "masks" / "a (1)_mask.png", box(255))
    save(tmp_path / "masks" / "a (1)_mask_1.png", box(255, at=14))
    report = convert()
    assert report.renamed == {"a (1)": "a_1"}
    assert (label(report, "a_1") == box(1) + box(1, at=14)).all()


def test_names_are_made_safe_and_unique(tmp_path, convert):
    stems = ["scan 1", "scan(1)", "SCAN_1", "\u00e4\u00df", "ok_0001", "\u4e2d", "p/x y"]
    folders(tmp_path, stems)
    report = convert()
    cases = [case.name for case in RawDataset.open(report.dataset).cases]
    assert len({case.casefold() for case in cases}) == 7 and "ok_0001" in cases and "p_x_y" in cases
    for seed, stem in enumerate(stems):
        assert (image(report, report.renamed.get(stem, stem)) == colours(seed).transpose(2, 0, 1)).all()


def test_groups(tmp_path, convert):
    folders(tmp_path, ["patient01_a", "patient01_b", "patient02_a"])
    report = convert(groups=r"(patient\d+)")
    assert report.spec.groups == {"patient01_a": "patient01", "patient01_b": "patient01", "patient02_a": "patient02"}
    assert RawDataset.open(report.dataset).spec.groups == report.spec.groups
    folders(tmp_path, ["other"])
    assert faults(convert, groups=r"(patient\d+)", overwrite=True) == [
        "other: the expression for groups, '(patient\\\\d+)', does not match"
    ]
    for wrong in (r"patient\d+", r"(a)(b)", "("):
        with pytest.raises(AutosegError, match="expression"):
            convert(groups=wrong, overwrite=True)


def test_jpeg_masks_of_jpeg_images(tmp_path, convert):
    big = (64, 96)
    save(tmp_path / "images" / "a.jpg", colours(size=big))
    mask = np.zeros(big, np.uint8)
    mask[8:40, 16:64] = 255
    save(tmp_path / "masks" / "a.jpg", mask, quality=90)
    report = convert()
    assert (label(report, "a") == mask // 255).all() and any("JPEGs" in note for note in report.notes)


def test_medical_files_keep_their_geometry_and_lose_their_tags(tmp_path, convert):
    import SimpleITK as sitk  # noqa: N813

    for folder, values, suffix in (("images", colours()[..., 0], ".nrrd"), ("masks", box(), ".nii.gz")):
        (tmp_path / folder).mkdir()
        file = sitk.GetImageFromArray(values[None])
        file.SetSpacing((0.5, 0.75, 2.0))
        file.SetMetaData("0010|0010", "SECRET")
        sitk.WriteImage(file, str(tmp_path / folder / f"a{suffix}"))
    assert b"SECRET" in (tmp_path / "images" / "a.nrrd").read_bytes()
    report = convert(channels=["MR"], modality="mr")
    assert report.spec.file_ending == ".nrrd" and report.spec.channel_names == {"0": "MR"}
    for path in report.dataset.raw.rglob("*.nrrd"):
        assert b"SECRET" not in path.read_bytes()
        assert sitk.ReadImage(str(path)).GetSpacing() == pytest.approx((0.5, 0.75, 2.0))


def test_channel_names_must_fit(tmp_path, convert):
    folders(tmp_path, ["a"])
    assert "2 channel names" in faults(convert, channels=["x", "y"])[0]
