"""Common layouts: every pixel as it must be, and faults named with their file."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from autoseg.fingerprint import fingerprint_dataset
from autoseg.io import RawDataset, read_case, read_label
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.workspace import Workspace
from dataset_conversion.registry import LAYOUTS
from dataset_conversion.run import convert
from tests.dataset_conversion import layouts
from tests.dataset_conversion.official import SIZE, picture, save
from tests.dataset_conversion.test_published import check

_CASES = {
    "coco": (layouts.coco, "coco", {}),
    "labelme": (layouts.labelme, "labelme", {}),
    "voc": (layouts.voc, "voc", {}),
    "voc_palette": (layouts.voc_palette, "voc", {"labels": "organ,tumour"}),
    "yolo": (layouts.yolo, "yolo", {}),
    "mask_per_class": (layouts.mask_per_class, "mask_per_class", {"labels": ["background", "disc", "cup"]}),
    "rle_csv": (layouts.rle_csv, "rle_csv", {"labels": "polyp,tool"}),
    "nnunet": (layouts.nnunet, "nnunet", {}),
    "nnunet_volumes": (layouts.nnunet_volumes, "nnunet", {}),
    "dicom_seg": (layouts.dicom_seg, "dicom_seg", {}),
}


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "root")


def built(name, root):
    for module in {"coco": ("pycocotools",), "dicom_seg": ("pydicom", "highdicom")}.get(name, ()):
        pytest.importorskip(module)
    return _CASES[name][0](root)


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("name", _CASES)
def test_each_layout(tmp_path, workspace, name, packed):
    tree = built(name, tmp_path / "source")
    source = tmp_path / "source"
    if packed:
        source = shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path / "source")
    _, converter, options = _CASES[name]
    report = convert(converter, source, workspace, "Set", options=options)
    check(report, tree)
    if not packed:
        assert len(fingerprint_dataset(report.dataset, 1).cases) == len(tree.truth) - len(tree.test)


def test_every_layout_is_tested():
    assert {converter for _, converter, _ in _CASES.values()} == {known.name for known in LAYOUTS}


def test_a_layout_needs_a_name(tmp_path, workspace):
    with pytest.raises(AutosegError, match="needs a name"):
        convert("yolo", tmp_path, workspace)


def test_automatic_decisions_are_reported(tmp_path, workspace):
    built("rle_csv", tmp_path / "rle")
    report = convert("rle_csv", tmp_path / "rle", workspace, "Runs", options={"labels": "polyp,tool"})
    assert any("1 images are not in the table" in note for note in report.notes)
    built("labelme", tmp_path / "labelme")
    assert any("1 points, lines" in note for note in convert("labelme", tmp_path / "labelme", workspace, "Me").notes)
    layouts.voc(tmp_path / "voc")
    assert any("1 images without" in note for note in convert("voc", tmp_path / "voc", workspace, "Voc").notes)


def test_overlapping_classes_are_counted(tmp_path, workspace):
    layouts.mask_per_class(tmp_path / "source")
    report = convert("mask_per_class", tmp_path / "source", workspace, "Set", options={"labels": "disc,cup"})
    assert "36 pixels of 1 images belong to two classes; the later label was kept" in report.notes


def test_slices_along_another_axis_and_only_labelled_ones(tmp_path, workspace):
    layouts.nnunet_volumes(tmp_path / "source")
    report = convert("nnunet", tmp_path / "source", workspace, "X", options={"axis": "x", "labelled": True})
    raw = RawDataset.open(report.dataset)
    # Squares of 20 pixels, moved by one from plane to plane, span 22 columns of both training volumes.
    assert len(raw.cases) == 2 * 22 and raw.cases[0].name == "p1_slice004"
    first = read_case(raw.cases[0].images)
    assert first.array.shape == (2, 48, 3) and first.spacing == pytest.approx((1.0, 6.0))
    assert first.array.dtype == np.float32 and first.array.min() < 0
    assert report.spec.labels == {"background": 0, "whole": (1, 2), "core": (2,)} and report.spec.licence == "CC0"


def test_groups_from_names(tmp_path, workspace):
    layouts.yolo(tmp_path / "source")
    report = convert("yolo", tmp_path / "source", workspace, "Set", options={"groups": r"(a$|b$|none$)"})
    assert report.spec.groups["images_train_a"] == report.spec.groups["images_test_a"] == "a"
    with pytest.raises(SeveralProblems, match="does not match"):
        convert("yolo", tmp_path / "source", workspace, "Other", options={"groups": r"(patient\d+)"})


def test_no_patient_data_is_written(tmp_path, workspace):
    built("dicom_seg", tmp_path / "source")
    report = convert("dicom_seg", tmp_path / "source", workspace, "Set")
    for path in report.dataset.raw.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"SECRET" not in content and b"1.2.3." not in content and "SECRET" not in path.name


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_faults_of_coco(tmp_path, workspace):
    built("coco", tmp_path / "source")
    table = tmp_path / "source" / "train" / "_annotations.coco.json"
    edit(table, lambda content: content["annotations"][0].update(segmentation=[[1, 2]]))
    edit(table, lambda content: content["images"][1].update(height=20))
    with pytest.raises(SeveralProblems) as caught:
        convert("coco", tmp_path / "source", workspace, "Set")
    assert len(caught.value.problems) == 2 and not workspace.datasets()
    assert "a.jpg" in caught.value.problems[0] and "b.jpg" in caught.value.problems[1]
    edit(table, lambda content: content["annotations"][0].pop("image_id"))
    with pytest.raises(AutosegError, match=r"annotations\[0\] lacks image_id"):
        convert("coco", tmp_path / "source", workspace, "Set")
    edit(table, lambda content: content["annotations"][0].update(image_id=0))
    edit(table, lambda content: content["images"][0].update(file_name="gone.jpg"))
    with pytest.raises(SeveralProblems, match=r"gone\.jpg, which is not there"):
        convert("coco", tmp_path / "source", workspace, "Set")


def test_faults_of_tables_and_outlines(tmp_path, workspace):
    built("rle_csv", tmp_path / "rle")
    table = tmp_path / "rle" / "train.csv"
    table.write_text(table.read_text().replace("a.jpg_1,", f"a.jpg_1,{SIZE[0] * SIZE[1]} 5 "))
    with pytest.raises(SeveralProblems, match=r"a\.jpg: runs to pixel"):
        convert("rle_csv", tmp_path / "rle", workspace, "Set")
    table.write_text("name,what\na,b\n")
    with pytest.raises(AutosegError, match="--id-column"):
        convert("rle_csv", tmp_path / "rle", workspace, "Set")
    layouts.yolo(tmp_path / "yolo")
    text = tmp_path / "yolo" / "labels" / "train" / "b.txt"
    text.write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(SeveralProblems, match=r"b\.txt, line 1: 4 coordinates"):
        convert("yolo", tmp_path / "yolo", workspace, "Set")
    text.write_text("5 0.5 0.5 0.2 0.2 0.1 0.1\n")
    with pytest.raises(SeveralProblems, match="class 5, expected 0 to 1"):
        convert("yolo", tmp_path / "yolo", workspace, "Set")


def test_faults_of_voc_and_folders(tmp_path, workspace):
    layouts.voc_palette(tmp_path / "voc")
    with pytest.raises(AutosegError, match="--labels"):
        convert("voc", tmp_path / "voc", workspace, "Set")
    with pytest.raises(SeveralProblems, match="holds the value"):
        convert("voc", tmp_path / "voc", workspace, "Set", options={"labels": "organ"})
    layouts.mask_per_class(tmp_path / "folders")
    save(tmp_path / "folders" / "images" / "c.jpg", picture(5))
    save(tmp_path / "folders" / "masks" / "cup" / "d.png", layouts.square(1, 1, 5, 255))
    with pytest.raises(SeveralProblems) as caught:
        convert("mask_per_class", tmp_path / "folders", workspace, "Set")
    assert sorted(line.rsplit(": ", 1)[1] for line in caught.value.problems) == [
        "a mask without an image",
        "no mask for this image in any class",
    ]


def test_a_volume_whose_mask_is_stored_mirrored_is_cut_like_its_mask(tmp_path):
    """Direction and origin of the mask say how it lies; a mask elsewhere is refused."""
    values, mask = np.arange(480, dtype=np.int16).reshape(4, 10, 12), np.zeros((4, 10, 12), np.uint8)
    mask[1, 2:5, 3:9] = 1

    def image_of(array, flip, origin):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((1.0, 1.0, 5.0))
        image.SetOrigin(origin)
        return sitk.Flip(image, flip, False)

    for name in ("imagesTr", "labelsTr"):
        (tmp_path / "set" / name).mkdir(parents=True)
    sitk.WriteImage(image_of(values, [False] * 3, (1, 2, 3)), str(tmp_path / "set/imagesTr/a_0000.nii.gz"))
    sitk.WriteImage(image_of(mask, [True, False, True], (1, 2, 3)), str(tmp_path / "set/labelsTr/a.nii.gz"))
    labels = {"background": 0, "thing": 1}
    description = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (tmp_path / "set/dataset.json").write_text(json.dumps(description))
    convert("nnunet", tmp_path / "set", Workspace.at(tmp_path), "Cut")
    label = read_label(tmp_path / "raw/Dataset501_Cut/labelsTr/a_slice001.nii.gz")
    assert np.array_equal(label.array, mask[1])
    sitk.WriteImage(image_of(mask, [False] * 3, (1, 2, 4)), str(tmp_path / "set/labelsTr/a.nii.gz"))
    with pytest.raises(AutosegError, match="does not lie on"):
        convert("nnunet", tmp_path / "set", Workspace.at(tmp_path), "Other")
