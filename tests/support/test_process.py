"""Whose process this is."""

from __future__ import annotations

import sys

import pytest

from autoseg.support.process import is_own


@pytest.mark.parametrize(
    ("name", "own"),
    [("/usr/bin/autoseg_train", True), ("autoseg_train.exe", True), ("autoseg_mine.py", False), ("pytest", False)],
)
def test_only_commands_are_our_own(name: str, own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [name])
    assert is_own() == own
