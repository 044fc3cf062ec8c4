"""Names that hold patients are recognised; names that only count or name a class are not."""

from __future__ import annotations

import re

import pytest

from autoseg.fingerprint.name_groups import suggest_groups


def numbered(text: str, patients: int, images: int) -> list[str]:
    return [text.format(p=patient, i=image) for patient in range(1, patients + 1) for image in range(1, images + 1)]


@pytest.mark.parametrize(
    "text",
    [
        "patient{p:03d}_frame{i:02d}", "Patient-{p}-slice-{i}", "P{p:02d}_{i:02d}", "{p:04d}_{i}", "sub-{p:02d}_img{i}",
        "case{p}_left{i}",
        "video{p}_f{i:04d}", "{p:03d}-{i:03d}", "subject {p} ({i})", "study_{p:02d}_series_{i}", "site1_patient{p}_frame{i}",
        "folder/patient{p}/image{i}",
    ],
)  # fmt: skip
def test_patients_are_found(text: str) -> None:
    found = suggest_groups(numbered(text, 6, 2))
    assert found is not None and found.groups == 6
    groups = {re.search(found.pattern, name)[1] for name in numbered(text, 6, 2)}  # type: ignore[index]
    assert len(groups) == 6


@pytest.mark.parametrize(
    "names",
    [
        numbered("image_{p:03d}", 20, 1), numbered("benign_{p:03d}", 20, 1) + numbered("malignant_{p:03d}", 20, 1),
        [f"ISIC_{n:07d}" for n in range(30)], [f"{n * 7919:032x}" for n in range(30)], numbered("img_2021_{p:03d}", 20, 1),
        numbered("patient{p:03d}", 20, 1), ["a", "b"], [], numbered("scan1_{i}", 1, 20), [f"benign ({n})" for n in range(20)],
        [f"{n:02d}_training" for n in range(20)], [f"{n:02d}_test" for n in range(20)],
    ],
)  # fmt: skip
def test_other_names_are_not(names: list[str]) -> None:
    assert suggest_groups(names) is None


def test_some_patients_with_one_image_do_not_hide_the_others() -> None:
    names = [*numbered("patient{p:02d}_{i}", 6, 3), "patient97_1", "patient98_1"]
    found = suggest_groups(names)
    assert found is not None and found.groups == 8


def test_the_expression_is_short_where_it_can_be() -> None:
    found = suggest_groups(numbered("patient{p:03d}_frame{i:02d}", 6, 2))
    assert found is not None and found.pattern == r"(patient\d+)"
