"""Folds by content, from raw files: other names, another order and other lossless formats give the same folds."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from autoseg import api
from autoseg.api.splits import completed_splits, given_splits, needs_hashes
from autoseg.fingerprint.measure import fingerprint_dataset
from autoseg.io import RawDataset, read_image, write_image, write_label
from autoseg.io.raw_dataset import write_description
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Splits
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import read_artefact, write_artefact
from autoseg.support.workspace import Dataset, Workspace
from dataset_conversion.run import convert
from tests.dataset_conversion import official as official_trees
from tests.fingerprint.datasets import LABELS, mask, picture

CASES = 24


def pictures() -> list[np.ndarray]:
    """Different pictures, of which two are equal and two nearly so."""
    made = [picture(index, (48, 64)) for index in range(CASES)]
    made[5] = made[11]
    made[7] = np.clip(made[3].astype(int) + 6, 0, 255).astype(np.uint8)
    return made


def dataset(root: Path, named: dict[str, np.ndarray], ending: str = ".png", shift: int = 0) -> Dataset:
    """shift: of the masks, which decide nothing."""
    data = Workspace(root).new_dataset(501, "Shapes")
    for name, pixels in named.items():
        write_image(data.raw / "imagesTr" / f"{name}_0000{ending}", pixels)
        write_label(data.raw / "labelsTr" / f"{name}{ending}", np.roll(mask((48, 64)), shift, axis=1))
    write_description(
        data.description,
        DatasetSpec(channel_names={"0": "R", "1": "G", "2": "B"}, labels=LABELS, numTraining=len(named), file_ending=ending),
    )
    return data


def canonical(data: Dataset, splits: str | Path = "canonical", partial: bool = False) -> Splits:
    """The folds as planning makes them, written to splits.json."""
    raw, measured = RawDataset.open(data), fingerprint_dataset(data, workers=2)
    made = given_splits(data, raw, measured, {}, splits, partial)
    assert made is not None
    completed = completed_splits(made, measured, raw.spec)
    write_artefact(data.splits, completed)
    return completed


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Dataset:
    data = dataset(tmp_path_factory.mktemp("original"), {f"case{k:02d}": one for k, one in enumerate(pictures())})
    canonical(data)
    return data


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
@pytest.mark.parametrize("seed", [1, 2])
def test_renaming_shuffling_and_reencoding_give_the_same_folds(original, tmp_path, ending, seed):
    order = np.random.default_rng(seed).permutation(CASES)
    everything = pictures()
    other = canonical(dataset(tmp_path, {f"x{place}": everything[k] for place, k in enumerate(order)}, ending, shift=seed))
    ours = read_artefact(original.splits, Splits)
    back = {f"x{place}": f"case{k:02d}" for place, k in enumerate(order)}
    back[f"x{[*order].index(5)}"] = back[f"x{[*order].index(11)}"] = "copies"
    for one, same in zip(ours.folds, other.folds, strict=True):
        for part in ("train", "validation", "inner"):
            expected = {"copies" if name in ("case05", "case11") else name for name in getattr(one, part)}
            assert {back[name] for name in getattr(same, part)} == expected
    assert other.id == ours.id != ""


def test_copies_stay_together(original):
    for fold in read_artefact(original.splits, Splits).folds:
        for pair in (("case05", "case11"), ("case03", "case07")):
            assert len({name in fold.validation for name in pair}) == 1
            assert len({name in fold.inner for name in pair}) == 1


def test_gray_pictures_stored_as_rgb_get_the_same_folds(tmp_path):
    gray = [one[:1] for one in pictures()]
    colours = dataset(tmp_path / "rgb", {f"a{k}": np.repeat(one, 3, axis=0) for k, one in enumerate(gray)})
    plain = dataset(tmp_path / "gray", {f"b{k}": one for k, one in enumerate(gray)})
    spec = replace(RawDataset.open(plain).spec, channel_names={"0": "gray"})
    write_description(plain.description, spec)
    assert canonical(colours).id == canonical(plain).id


def test_export_and_import_by_content(original, tmp_path):
    file = tmp_path / "folds.txt"
    exported = api.export_splits(501, file, root=original.root)
    assert exported.id in file.read_text() and exported.summary() == f"5 folds of 24 cases, id {exported.id}"
    everything = pictures()
    other = dataset(tmp_path / "other", {f"n{k}": everything[k] for k in reversed(range(CASES))}, ".bmp")
    match = api.compare_splits(501, file, root=other.root)
    assert match.exact and match.summary() == f"folds {exported.id}: 24 cases matched, 0 missing, 0 changed, 0 extra"
    assert needs_hashes(file) and needs_hashes("canonical") and not needs_hashes(None) and not needs_hashes("official")
    imported = canonical(other, file)
    assert imported.id == exported.id and f"folds.txt, id {exported.id}" in imported.given
    assert api.splits_of(501, other.root).id == exported.id


def test_missing_extra_and_changed_images_are_listed(original, tmp_path, caplog):
    file = tmp_path / "folds.txt"
    api.export_splits(501, file, root=original.root)
    named = {f"case{k:02d}": one for k, one in enumerate(pictures())}
    del named["case00"]
    named["case01"] = cv2.GaussianBlur(named["case01"], (0, 0), 1)
    named["new"] = picture(99, (48, 64))
    other = dataset(tmp_path / "other", named)
    with pytest.raises(SeveralProblems) as caught:
        canonical(other, file)
    for line in ("missing: case00", "changed: case01", "extra: new"):
        assert line in str(caught.value)
    assert not other.splits.exists()
    partial = canonical(other, file, partial=True)
    assert "1 images changed: case01" in caplog.text and "1 images not in the file: new" in caplog.text
    assert partial.id != read_artefact(original.splits, Splits).id
    used = {case for fold in partial.folds for case in (*fold.train, *fold.validation)}
    assert used == {name for name in named if name != "new"}


def test_hashes_of_older_releases_are_measured_again(original, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(original.root, root)
    data = Workspace(root).dataset(501)
    old = replace(
        read_artefact(data.fingerprint, Fingerprint),
        hash_version=1,
        cases=tuple(replace(case, pixel_hash="0" * 32) for case in read_artefact(data.fingerprint, Fingerprint).cases),
    )
    write_artefact(data.fingerprint, old)
    assert fingerprint_dataset(data) == old
    raw = RawDataset.open(data)
    own = read_artefact(data.splits, Splits)
    assert completed_splits(own, old, raw.spec).id == ""
    assert api.splits_of(501, root).id == own.id
    assert read_artefact(data.fingerprint, Fingerprint).hash_version == 2


def test_canonical_folds_stay_with_another_training_seed_but_not_another_number(original):
    raw, measured = RawDataset.open(original), fingerprint_dataset(original)
    kept = given_splits(original, raw, measured, {"training.seed": "3"}, None)
    assert kept == read_artefact(original.splits, Splits)
    with pytest.raises(AutosegError, match=r"were given \(canonical\), so training.folds cannot be set"):
        given_splits(original, raw, measured, {"training.folds": "3"}, None)
    three = given_splits(original, raw, measured, {"training.folds": "3"}, "canonical")
    assert three is not None and len(three.folds) == 3


def test_images_written_again_are_the_same_pictures(original):
    """The reader gives back what was written, or the tests above prove nothing."""
    assert (read_image(original.raw / "imagesTr" / "case02_0000.png").array == pictures()[2]).all()


@pytest.mark.parametrize("name", ["isic2018", "camus", "fives", "drive", "glas", "monuseg", "acdc", "nuclei_dsb2018"])
def test_official_splits_of_converted_archives(tmp_path, name):
    tree = official_trees.BUILDERS[name](tmp_path / "source")
    kept = {case for case, truth in tree.truth.items() if truth is not None}
    report = convert(name, tmp_path / "source", Workspace(tmp_path / "root"), merge_test=True)
    data = report.dataset
    raw, measured = RawDataset.open(data), fingerprint_dataset(data, workers=2)
    made = given_splits(data, raw, measured, {}, "official")
    assert made is not None
    (fold,) = made.folds
    assert set(fold.validation) == tree.test & kept and set(fold.train) == kept - tree.test
    if name in ("isic2018", "camus"):
        validation = "ISIC_0000003" if name == "isic2018" else "patient0002"
        assert fold.inner and all(case.startswith(validation) for case in fold.inner)
    if name in ("fives", "drive", "glas", "acdc"):
        (data.raw / "cases.csv").unlink()
        again = given_splits(data, raw, measured, {}, "official")
        assert again is not None and again.folds[0].validation == fold.validation


def test_without_merged_test_cases_official_says_what_to_do(tmp_path):
    official_trees.drive(tmp_path / "source")
    data = convert("drive", tmp_path / "source", Workspace(tmp_path / "root")).dataset
    raw, measured = RawDataset.open(data), fingerprint_dataset(data, workers=2)
    with pytest.raises(AutosegError, match="--merge-test"):
        given_splits(data, raw, measured, {}, "official")
