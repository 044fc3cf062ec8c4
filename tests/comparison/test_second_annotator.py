"""Two people as the ceiling, and the models with either of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from autoseg import api
from autoseg.cli import compare
from autoseg.io import read_label, write_label
from autoseg.support.errors import AutosegError


def agreements(predicted: np.ndarray, first: np.ndarray, second: np.ndarray) -> list[float]:
    """Dice of the model with the first, with the second, and of the two: mean over the classes that any of them drew."""
    rows = []
    for value in (1, 2):
        of_three = predicted == value, first == value, second == value
        if any(mask.any() for mask in of_three):
            model, one, other = of_three
            rows.append([dice(model, one), dice(model, other), dice(other, one)])
    return [float(np.mean(column)) for column in zip(*rows, strict=True)]


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """1 for a class that neither drew, as another pair did."""
    return 2 * np.sum(one & other) / (one.sum() + other.sum()) if one.any() or other.any() else 1.0


def masks_of(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: read_label(path).array for path in sorted(folder.glob("*.png"))}


@pytest.fixture
def second(experiment, tmp_path: Path) -> Path:
    """The masks of eight cases, moved by two rows."""
    folder = tmp_path / "second"
    folder.mkdir()
    for name, mask in list(masks_of(experiment.dataset.raw / "labelsTr").items())[:8]:
        write_label(folder / f"{name}.png", np.roll(mask, 2, axis=0))
    return folder


def test_agreements_are_those_of_the_masks(experiment, second: Path, tmp_path: Path) -> None:
    (dataset,) = api.compare(
        "Polyps", root=experiment.root, second_annotator=second, output=tmp_path / "out"
    ).datasets
    first, other = masks_of(experiment.dataset.raw / "labelsTr"), masks_of(second)
    assert {one.model for one in dataset.annotators} == {result.model for result in dataset.models}
    for one in dataset.annotators:
        assert one.cases == one.units == 8
        predicted = {}
        for fold in (0, 1):
            predicted |= masks_of(experiment.dataset.fold(one.model, fold) / "validation")
        triples = [(predicted[case], first[case], other[case]) for case in other]
        expected = np.mean([agreements(*triple) for triple in triples], axis=0)
        assert [one.first.mean, one.second.mean, one.people.mean] == pytest.approx(list(expected))
        assert one.both.mean == pytest.approx((one.first.mean + one.second.mean) / 2)
        assert one.difference.mean == pytest.approx(one.both.mean - one.people.mean)
        assert one.difference.low <= one.difference.mean <= one.difference.high
    assert len({one.people.mean for one in dataset.annotators}) == 1
    assert "Agreement with two annotators" in (tmp_path / "out" / "report.html").read_text()


def test_a_second_person_who_draws_the_same_is_the_first(experiment, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(experiment.dataset.raw / "labelsTr", copied)
    (dataset,) = api.compare(
        "Polyps", root=experiment.root, second_annotator=copied, metric="hd95", output=tmp_path / "out", report=False
    ).datasets
    assert all(one.people.mean == 0 and one.first == one.second for one in dataset.annotators)


def test_gray_levels_are_read_as_classes(experiment, second: Path, tmp_path: Path) -> None:
    options = {"root": experiment.root, "second_annotator": second, "output": tmp_path / "out", "report": False}
    (before,) = api.compare("Polyps", **options).datasets
    for path in second.glob("*.png"):
        write_label(path, read_label(path).array * 127)
    (after,) = api.compare("Polyps", **options).datasets
    assert after.annotators == before.annotators


def test_what_cannot_be_compared_is_named(experiment, tmp_path: Path) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    options = {"root": experiment.root, "second_annotator": folder, "output": tmp_path / "out", "report": False}
    with pytest.raises(AutosegError, match="has no masks"):
        api.compare("Polyps", **options)
    write_label(folder / "somebody.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(AutosegError, match="no mask of a held-out case") as caught:
        api.compare("Polyps", **options)
    assert "polyps_000.png" in caught.value.remedy
    write_label(folder / "polyps_000.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(AutosegError, match="cannot be scored|pixels"):
        api.compare("Polyps", **options)
    assert not (tmp_path / "out").exists()


def test_a_single_case_is_too_few(experiment, tmp_path: Path) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    shutil.copy(experiment.dataset.raw / "labelsTr" / "polyps_000.png", folder)
    options = {"root": experiment.root, "second_annotator": folder, "output": tmp_path / "out", "report": False}
    with pytest.raises(AutosegError, match=r"too few held-out cases of Dataset501_Polyps \(polyps_000\)") as caught:
        api.compare("Polyps", **options)
    assert "needs 2 cases" in caught.value.remedy and not (tmp_path / "out").exists()


def test_the_command_shows_the_table(experiment, second: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["Polyps", "--root", str(experiment.root), "--second-annotator", str(second), "--no-report"]
    assert compare.main([*words, "-o", str(tmp_path / "out")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Agreement with two annotators on" in shown and "which is the ceiling" in shown
