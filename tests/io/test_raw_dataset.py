"""nnU-Net v2's layout, ours and theirs."""

import json

import numpy as np
import pytest

from autoseg.io import RawDataset, list_cases, write_image, write_label
from autoseg.io.raw_dataset import read_description, update_description, write_description
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.workspace import Workspace

NNUNET = {
    "channel_names": {"0": "R", "1": "G", "2": "B"},
    "labels": {"background": 0, "polyp": 1},
    "numTraining": 2,
    "file_ending": ".png",
    "license": "CC0",
    "overwrite_image_reader_writer": "NaturalImage2DIO",
    "tensorImageSize": "2D",
}


@pytest.fixture
def dataset(tmp_path):
    dataset = Workspace(tmp_path).new_dataset(7, "Polyp")
    for case in ("b_1", "a"):
        write_image(dataset.raw / "imagesTr" / f"{case}_0000.png", np.zeros((3, 4, 4), np.uint8))
        write_label(dataset.raw / "labelsTr" / f"{case}.png", np.zeros((4, 4), np.uint8))
    write_image(dataset.raw / "imagesTs" / "t_0000.png", np.zeros((3, 4, 4), np.uint8))
    dataset.description.write_text(json.dumps(NNUNET))
    return dataset


def test_a_changed_field_leaves_all_others(dataset):
    listed = {"c": {"images": ["imagesTr/a_0000.png"], "label": "labelsTr/a.png"}}
    dataset.description.write_text(json.dumps({**NNUNET, "dataset": listed}))
    update_description(dataset.description, groups={"c": "p1"}, numTraining=3)
    expected = {**NNUNET, "dataset": listed, "groups": {"c": "p1"}, "numTraining": 3}
    assert json.loads(dataset.description.read_text()) == expected
    update_description(dataset.description, groups={})
    assert "groups" not in json.loads(dataset.description.read_text())


def test_an_nnunet_dataset_opens_unchanged(dataset):
    raw = RawDataset.open(dataset)
    assert [case.name for case in raw.cases] == ["a", "b_1"]
    assert raw.cases[0].images == (dataset.raw / "imagesTr" / "a_0000.png",)
    assert raw.cases[0].label == dataset.raw / "labelsTr" / "a.png"
    assert [case.label for case in raw.test_cases] == [None]
    assert raw.scheme.names == ("background", "polyp") and raw.spec.licence == "CC0"


def test_the_description_survives_a_round_trip(tmp_path, dataset):
    path = tmp_path / "dataset.json"
    spec = read_description(dataset.description)
    write_description(path, spec)
    assert read_description(path) == spec
    assert "regions_class_order" not in json.loads(path.read_text())


def test_regions_and_ignore(dataset):
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    dataset.description.write_text(json.dumps(NNUNET | {"labels": labels, "regions_class_order": [1, 2]}))
    scheme = RawDataset.open(dataset).scheme
    assert scheme.regions and scheme.members == ((1, 2), (2,)) and scheme.ignore == 3


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"labels": {"background": 0, "polyp": 2}}, "without gaps"),
        ({"labels": {"polyp": 1}}, "background"),
        ({"labels": {}}, "labels"),
        ({"channel_names": []}, "channel_names"),
        ({"file_ending": "png"}, "file_ending"),
        ({"numTraining": "two"}, "numTraining"),
        ({"file_ending": ".bmp"}, r"\.bmp"),
    ],
)
def test_faults_of_the_description_are_named(dataset, change, word):
    dataset.description.write_text(json.dumps(NNUNET | change))
    with pytest.raises(AutosegError, match=word):
        RawDataset.open(dataset)


def test_missing_broken_and_old_descriptions(dataset):
    dataset.description.write_text(json.dumps({"modality": {"0": "MRI"}, "labels": {"0": "background"}}))
    with pytest.raises(AutosegError, match="v1"):
        RawDataset.open(dataset)
    dataset.description.write_text("{")
    with pytest.raises(AutosegError, match=r"dataset\.json cannot be read"):
        RawDataset.open(dataset)
    dataset.description.unlink()
    with pytest.raises(AutosegError, match="missing"):
        RawDataset.open(dataset)


def test_channel_files_in_order_and_numbers_that_are_names(tmp_path):
    for name in ("x_0001", "x_0000", "scan_2024", "plain"):
        write_image(tmp_path / f"{name}.png", np.zeros((1, 4, 4), np.uint8))
    (tmp_path / ".hidden_0000.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("")
    cases = list_cases(tmp_path, None, ".png", 2)
    assert [case.name for case in cases] == ["plain", "scan_2024", "x"]
    assert [path.name for path in cases[2].images] == ["x_0000.png", "x_0001.png"]


def test_missing_channels_are_listed_together(tmp_path):
    for name in ("x_0001", "y_0000", "y_0002"):
        write_image(tmp_path / f"{name}.png", np.zeros((1, 4, 4), np.uint8))
    with pytest.raises(SeveralProblems) as caught:
        list_cases(tmp_path, None, ".png", 3)
    assert len(caught.value.problems) == 2


def test_files_listed_in_the_description(dataset):
    entry = {"one": {"images": ["imagesTr/a_0000.png"], "label": "labelsTr/a.png"}}
    dataset.description.write_text(json.dumps(NNUNET | {"dataset": entry}))
    raw = RawDataset.open(dataset)
    assert [case.name for case in raw.cases] == ["one"] and raw.listed
    assert raw.references == {"one": dataset.raw / "labelsTr" / "a.png"}


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ([], "must be an object"),
        ({"one": 5}, "dataset.one"),
        ({"one": {"images": "imagesTr/a_0000.png", "label": "labelsTr/a.png"}}, "a list of paths"),
        ({"one": {"images": [3], "label": "labelsTr/a.png"}}, "a list of paths"),
        ({"one": {"images": [], "label": "labelsTr/a.png"}}, "a list of paths"),
        ({"one": {"images": ["imagesTr/a_0000.png"]}}, "a path"),
        ({"../one": {"images": ["imagesTr/a_0000.png"], "label": "labelsTr/a.png"}}, "without folders"),
    ],
)
def test_a_wrong_list_of_files_is_named(dataset, entry, word):
    dataset.description.write_text(json.dumps(NNUNET | {"dataset": entry}))
    with pytest.raises(SeveralProblems, match=rf"dataset\.json lists files in a wrong way(.|\n)*{word}"):
        RawDataset.open(dataset)
