"""The writer checks the cases of any converter."""

import numpy as np
import pytest

from autoseg.io import Image, Label, RawDataset, read_image, read_label
from autoseg.schema.dataset import DatasetSpec
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.workspace import Workspace
from dataset_conversion.writer import NewCase, common_ending, safe_names, write_dataset
from tests.dataset_conversion.pictures import box, colours, save

SPEC = DatasetSpec(
    channel_names={"0": "R", "1": "G", "2": "B"},
    labels={"background": 0, "thing": 1},
    numTraining=0,
    file_ending=".png",
    licence="CC0",
)


@pytest.fixture
def dataset(tmp_path):
    return Workspace(tmp_path).new_dataset(501, "Set")


def picture(seed=0):
    return Image(array=colours(seed).transpose(2, 0, 1), spacing=None)


def test_decoded_images_files_and_functions(tmp_path, dataset):
    path = save(tmp_path / "x" / "a.png", colours(1))
    cases = [
        NewCase(name="a", images=[path], label=box(), group="p"),
        NewCase(
            name="b",
            images=[picture(2)],
            label=lambda: Label(array=box(0), spacing=None, notes=("drawn by hand", "7 pixels were guessed")),
        ),
        NewCase(name="t", images=[lambda: picture(3)], label=None, part="Ts"),
    ]
    report = write_dataset(dataset, SPEC, cases, workers=2)
    assert (report.spec.numTraining, report.spec.groups, report.spec.name) == (2, {"a": "p"}, "Set")
    assert report.notes == ("drawn by hand (1 file)", "7 pixels of 1 images were guessed", "1 masks are empty")
    assert (report.record.training, report.record.test, report.record.groups) == (2, 1, 1)
    assert report.record.classes["thing"].cases == 1
    raw = RawDataset.open(dataset)
    assert [case.name for case in (*raw.cases, *raw.test_cases)] == ["a", "b", "t"] and raw.spec.licence == "CC0"
    assert (read_image(raw.cases[1].images[0]).array == picture(2).array).all()
    assert (read_label(raw.cases[0].label).array == box()).all()


def test_all_faults_and_nothing_left(dataset):
    def broken():
        raise AutosegError("scan.png is damaged", "fetch it again")

    cases = [
        NewCase(name="a", images=[picture()], label=box(2)),
        NewCase(name="b", images=[picture()], label=box(size=(9, 30))),
        NewCase(name="c", images=[Image(array=picture().array[:1], spacing=None)], label=box()),
        NewCase(name="d", images=[picture()], label=None),
        NewCase(name="x", images=[broken], label=box()),
        NewCase(name="E", images=[picture()], label=box()),
        NewCase(name="e", images=[picture()], label=box()),
        NewCase(name="f", images=[Image(array=picture().array.astype(np.float32), spacing=None)], label=box()),
    ]
    with pytest.raises(SeveralProblems) as caught:
        write_dataset(dataset, SPEC, cases)
    text = "\n".join(caught.value.problems)
    for part in ("value 2 (48 pixels)", "differ in size", "1 channels", "without a mask", "scan.png", "two cases", "float32"):
        assert part in text
    assert len(caught.value.problems) == 7 and list(dataset.raw.parent.iterdir()) == []


def test_a_refused_rewrite_leaves_the_old_set(dataset):
    write_dataset(dataset, SPEC, [NewCase(name="a", images=[picture()], label=box())])
    with pytest.raises(SeveralProblems):
        write_dataset(dataset, SPEC, [NewCase(name="b", images=[picture()], label=box(5))], overwrite=True)
    assert [case.name for case in RawDataset.open(dataset).cases] == ["a"]
    write_dataset(dataset, SPEC, [NewCase(name="b", images=[picture()], label=box())], overwrite=True)
    assert [case.name for case in RawDataset.open(dataset).cases] == ["b"]


def test_only_what_a_conversion_wrote_is_overwritten(dataset):
    """A dataset of nnU-Net, or one made by hand, may be the only copy."""
    (dataset.raw / "imagesTr").mkdir(parents=True)
    dataset.description.write_text("{}")
    with pytest.raises(AutosegError, match="was not written by autoseg_convert"):
        write_dataset(dataset, SPEC, [NewCase(name="a", images=[picture()], label=box())], overwrite=True)
    assert dataset.description.read_text() == "{}"
    dataset.raw.rename(dataset.raw.with_name("elsewhere"))
    dataset.raw.symlink_to(dataset.raw.with_name("elsewhere"))
    with pytest.raises(AutosegError, match="was not written by autoseg_convert"):
        write_dataset(dataset, SPEC, [NewCase(name="a", images=[picture()], label=box())], overwrite=True)
    assert dataset.description.read_text() == "{}"


def test_an_empty_set_is_refused(dataset):
    with pytest.raises(SeveralProblems, match="no training case"):
        write_dataset(dataset, SPEC, [])


@pytest.mark.parametrize(
    ("names", "ending"),
    [
        (["a.jpg", "b.JPEG"], ".png"),
        (["a.png", "b.jpg"], ".png"),
        (["a.bmp"], ".bmp"),
        (["a.tiff"], ".tiff"),
        (["a.tif", "b.png"], ".tif"),
        (["a.dcm"], ".nii.gz"),
        (["a.nii.gz", "b.mha"], ".nii.gz"),
        (["a.mhd"], ".mha"),
    ],
)
def test_one_ending_for_all(tmp_path, names, ending):
    assert common_ending([tmp_path / name for name in names]) == ending


def test_pictures_and_medical_files_do_not_mix(tmp_path):
    with pytest.raises(AutosegError, match="two datasets"):
        common_ending([tmp_path / "a.png", tmp_path / "b.dcm"])


def test_safe_names():
    assert safe_names(["a", "A", "a b", "a_b", ".x", "-", "a.b-c_d"]) == {
        "a": "a", "A": "A_2", "a b": "a_b", "a_b": "a_b_2", ".x": "x", "-": "case", "a.b-c_d": "a.b-c_d",
    }  # fmt: skip
