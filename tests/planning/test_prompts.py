from __future__ import annotations

import pytest

from autoseg.planning.prompts import BREAST, POLYP, VESSELS, prompts


@pytest.mark.parametrize(("names", "about", "expected"), [
    (["polyp"], "", POLYP),
    (["blood_vessels"], "Fundus", VESSELS),
    (["lesion"], "ultrasound BreastUS", BREAST),
    (["tumour"], "busi", BREAST),
])  # fmt: skip
def test_the_studys_tasks_get_the_studys_words(names: list[str], about: str, expected: str) -> None:
    assert prompts(names, about) == {names[0]: expected}


def test_all_others_get_a_template_with_their_name() -> None:
    result = prompts(["right_ventricle", "polyp"], "MRI Heart")
    assert "right ventricle in this MR image" in result["right_ventricle"]
    assert result["polyp"] != POLYP and "polyp" in result["polyp"]
    assert "lesion" in prompts(["lesion"], "dermoscopy")["lesion"] != BREAST
