"""What a study needs is looked for, and all that is missing is listed."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.models import registry
from autoseg.study.requirements import decide_starts, find_data, missing_packages
from autoseg.support.workspace import Workspace
from tests.study.studies import study


def test_archives_datasets_and_replacements_are_found(tmp_path: Path) -> None:
    (tmp_path / "raw" / "Dataset501_a").mkdir(parents=True)
    (tmp_path / "raw" / "Dataset502_Mine").mkdir()
    (tmp_path / "other" / "b").mkdir(parents=True)
    workspace, places = Workspace(tmp_path), [tmp_path / "nowhere", tmp_path / "other"]
    sources, problems = find_data(study(), workspace, places, {})
    assert not problems and [one.study.name for one in sources] == ["A", "B"]
    assert sources[0].existing is not None and sources[1].archive == tmp_path / "other" / "b"
    sources, problems = find_data(study(), workspace, places, {"A": "502"})
    assert not problems and sources[0].existing is not None and sources[0].existing.short_name == "Mine" and sources[0].used


def test_all_missing_data_are_listed_with_the_way_to_get_them(tmp_path: Path) -> None:
    sources, problems = find_data(study(), Workspace(tmp_path), [tmp_path], {"C": "x", "B": "absent"})
    assert not sources and len(problems) == 3
    text = "\n".join(problems)
    assert "--use C: the study has no dataset C, but A, B" in text
    assert "data: A: there is no a in" in text and "--use A=DATASET" in text
    assert "data: B: there is no dataset 'absent'" in text


@pytest.fixture
def models() -> list[object]:
    return ["segformer", "ukan", {"name": "hsnet", "pretrained": "none"}]


def test_missing_weights_are_problems_or_random(tmp_path: Path, models: list[object]) -> None:
    one = study(models=models)
    refused = decide_starts(one, tmp_path, "refuse", "full")
    missing, command = refused.problems
    assert "weights: segformer b3: ImageNet" in missing
    assert command.startswith("autoseg_weights fetch segformer:b3") and "--missing-weights random" in command
    random = decide_starts(one, tmp_path, "random", "full")
    assert not random.problems and random.random == ("segformer",) and not random.variants
    assert random.models["segformer"].pretrained == "none" and random.models["segformer"].variant == "b3"
    assert random.models["hsnet"].pretrained == "none"


def test_small_random_models_are_in_their_smallest_variant(tmp_path: Path, models: list[object]) -> None:
    small = decide_starts(study(models=models), tmp_path, "random", "small")
    smallest = registry.spec("segformer").variants[0].name
    assert small.models["segformer"].variant == smallest != "b3"
    assert small.variants["segformer"] == smallest
    assert small.models["ukan"].variant == registry.spec("ukan").variants[0].name


def test_models_whose_weights_are_there_keep_their_variant(tmp_path: Path) -> None:
    """These come with an installed package."""
    one = study(models=["efficientnet_lite0_upernet"])
    starts = decide_starts(one, tmp_path, "refuse", "small")
    assert not starts.problems and not starts.random and not starts.variants
    assert starts.models["efficientnet_lite0_upernet"].pretrained == ""


def test_the_package_for_heat_maps_is_needed_only_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoseg.study.requirements.HEAT_MAP_PACKAGE", "no_such_package")
    maps, none = study(comparison={"worst_cases": 2}), study()
    assert "--no-heat-maps" in next(missing_packages(maps, True))
    assert not [*missing_packages(maps, False), *missing_packages(none, True)]
