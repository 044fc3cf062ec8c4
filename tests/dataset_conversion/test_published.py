"""Each published dataset, as a small tree with the official names: converted, checked against the truth, fingerprinted."""

import csv
import importlib
import shutil

import numpy as np
import pytest

from autoseg.fingerprint import fingerprint_dataset
from autoseg.io import RawDataset, read_case, read_label
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.workspace import Workspace
from dataset_conversion.registry import PUBLISHED
from dataset_conversion.run import convert
from tests.dataset_conversion import official

# JPEG moves edges of masks a little; everything else must be exact.
_NOISY = {"neopolyp", "kvasir_seg"}


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "root")


def labels_of(report):
    raw = RawDataset.open(report.dataset)
    cases = [*raw.cases, *raw.test_cases]
    return {case.name: None if case.label is None else read_label(case.label).array for case in cases}


def check(report, tree, noisy=False):
    """Counts, labels, groups, split and every pixel of the masks."""
    raw = RawDataset.open(report.dataset)
    assert tuple(report.spec.labels) == tree.labels
    assert {case.name for case in raw.test_cases} == tree.test
    assert {case.name for case in raw.cases} == set(tree.truth) - tree.test
    assert raw.spec.groups == tree.groups
    for name, label in labels_of(report).items():
        truth = tree.truth[name]
        if truth is None:
            assert label is None, name
        elif noisy:
            assert (label != truth).mean() < 0.02 and set(np.unique(label)) == set(np.unique(truth)), name
        else:
            assert (label == truth).all(), name
    first = read_case(raw.cases[0].images)
    assert first.array.shape[0] == tree.channels == len(report.spec.channel_names)
    if tree.spacing:
        assert first.spacing == pytest.approx(tree.spacing)


@pytest.mark.parametrize("name", official.BUILDERS)
def test_the_official_layout(tmp_path, workspace, name):
    tree = official.BUILDERS[name](tmp_path / "source")
    report = convert(name, tmp_path / "source", workspace, workers=2)
    check(report, tree, name in _NOISY)
    fingerprint = fingerprint_dataset(report.dataset, 1)
    assert len(fingerprint.cases) == len(tree.truth) - len(tree.test)
    assert (report.dataset.raw / "contact_sheet.png").is_file()


@pytest.mark.parametrize("name", official.BUILDERS)
def test_the_same_from_an_archive(tmp_path, workspace, name):
    tree = official.BUILDERS[name](tmp_path / "source")
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path / "source")
    shutil.rmtree(tmp_path / "source")
    check(convert(name, archive, workspace, workers=2), tree, name in _NOISY)


def test_every_dataset_has_a_builder_and_a_docstring():
    assert set(official.BUILDERS) == {known.name for known in PUBLISHED}
    for known in PUBLISHED:
        text = importlib.import_module(known.module).__doc__
        assert "Layout" in text and known.paper.split()[0] in text, known.name


def test_a_tree_of_another_layout_is_refused(tmp_path, workspace):
    official.etis(tmp_path / "source")
    for known in PUBLISHED:
        if known.name not in ("etis", "cvc_colondb", "kvasir_seg"):
            with pytest.raises(AutosegError, match="holds no images in the layout"):
                convert(known.name, tmp_path / "source", workspace)
    assert not workspace.raw.exists()


def test_camus_of_the_challenge(tmp_path, workspace):
    tree = official.camus_mhd(tmp_path / "source")
    report = convert("camus", tmp_path / "source", workspace)
    check(report, tree)
    assert report.spec.file_ending == ".mha"
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path / "source")
    check(convert("camus", archive, workspace, "Zipped"), tree)


def test_camus_qualities_and_merged_split(tmp_path, workspace):
    official.camus(tmp_path / "source")
    report = convert("camus", tmp_path / "source", workspace, options={"quality": "good"}, merge_test=True)
    assert (report.record.training, report.record.test, report.record.groups) == (8, 0, 2)
    rows = list(csv.DictReader((report.dataset.raw / "cases.csv").open()))
    assert {row["quality"] for row in rows} == {"Good"} and {row["view"] for row in rows} == {"2CH", "4CH"}
    assert "56" not in (report.dataset.raw / "cases.csv").read_text()
    whole = convert("camus", tmp_path / "source", workspace, "All", merge_test=True)
    assert (whole.record.training, whole.record.test) == (12, 0)


def test_second_observers_and_fields_of_view(tmp_path, workspace):
    official.drive(tmp_path / "drive")
    report = convert("drive", tmp_path / "drive", workspace, options={"observer": 2, "field_of_view": True})
    labels = labels_of(report)
    assert report.spec.labels == {"background": 0, "vessel": 1, "ignore": 2}
    assert (labels["01_test"][0, 0], labels["21_training"][0, 0], labels["01_test"][24, 32]) == (
        2,
        2,
        labels["01_test"][24, 32],
    )
    assert (labels["01_test"][labels["01_test"] < 2] == official.blob(51)[labels["01_test"] < 2]).all()
    assert (labels["21_training"][labels["21_training"] < 2] == official.blob(21)[labels["21_training"] < 2]).all()
    official.stare(tmp_path / "stare")
    other = labels_of(convert("stare", tmp_path / "stare", workspace, options={"observer": 2}))
    assert (other["im0002"] == official.blob(9)).all()
    official.hrf(tmp_path / "hrf")
    assert convert("hrf", tmp_path / "hrf", workspace, options={"field_of_view": True}).spec.labels["ignore"] == 2


def test_classes_and_healthy_tissue_on_request(tmp_path, workspace):
    official.busi(tmp_path / "busi")
    report = convert("busi", tmp_path / "busi", workspace, options={"without_normal": True})
    assert report.record.training == 3 and not any("are empty" in note for note in report.notes)
    official.bus_ucm(tmp_path / "ucm")
    lesion = convert("bus_ucm", tmp_path / "ucm", workspace, options={"lesion": True, "without_normal": True})
    assert list(lesion.spec.labels) == ["background", "lesion"] and lesion.record.training == 3
    official.montgomery(tmp_path / "lungs")
    lung = convert("montgomery", tmp_path / "lungs", workspace, options={"lung": True})
    assert list(lung.spec.labels) == ["background", "lung"] and lung.record.classes["lung"].cases == 3


def test_rims_of_nuclei(tmp_path, workspace):
    official.monuseg(tmp_path / "source")
    labels = labels_of(convert("monuseg", tmp_path / "source", workspace, options={"boundary": True}))
    one = labels["TCGA-A7-A13E-01Z-00-DX1"][5:13, 4:14]
    assert (one[0] == 2).all() and (one[:, -1] == 2).all() and (one[1:-1, 1:-1] == 1).all()


def test_entities_in_outlines_are_refused(tmp_path, workspace):
    official.monuseg(tmp_path / "source")
    path = next((tmp_path / "source").rglob("TCGA-A7-A13E*.xml"))
    path.write_text('<!DOCTYPE a [<!ENTITY a "b">]>' + path.read_text())
    with pytest.raises(SeveralProblems, match="defines entities"):
        convert("monuseg", tmp_path / "source", workspace)


def test_everything_wrong_is_listed_with_its_file(tmp_path, workspace):
    official.isic2018(tmp_path / "source")
    masks = tmp_path / "source" / "ISIC2018_Task1_Training_GroundTruth"
    (masks / "ISIC_0000000_segmentation.png").unlink()
    official.save(masks / "ISIC_0000777_segmentation.png", official.blob(1))
    with pytest.raises(SeveralProblems) as caught:
        convert("isic2018", tmp_path / "source", workspace)
    assert [("ISIC_0000000.jpg" in line, "0000777" in line) for line in sorted(caught.value.problems)] == [
        (True, False),
        (False, True),
    ]
    (masks / "ISIC_0000777_segmentation.png").unlink()
    official.save(masks / "ISIC_0000000_segmentation.png", official.blob(1)[:-1])
    official.save(masks / "ISIC_0000001_segmentation.png", official.blob(1, 38))
    (masks / "ISIC_0000002_segmentation.png").write_text("no picture")
    with pytest.raises(SeveralProblems) as caught:
        convert("isic2018", tmp_path / "source", workspace)
    assert len(caught.value.problems) == 3 and not workspace.datasets()
    for text in ("differ in size", "values up to 38", "cannot be read"):
        assert any(text in line for line in caught.value.problems), text
