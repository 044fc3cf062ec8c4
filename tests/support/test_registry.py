from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from autoseg.support.errors import AutosegError
from autoseg.support.registry import Registry
from tests.support.packages import install

GROUP = "autoseg.registry_test"


def registry(**more: Any) -> Registry[Any]:
    return Registry("loss", GROUP, {"plain": "math:sqrt", "whole": "json", "made": 3}, **more)


def test_objects_modules_and_attributes_of_our_own() -> None:
    import json
    import math

    known = registry()
    assert known.names() == ("plain", "whole", "made")
    assert (known.get("plain"), known.get("whole"), known.get("made")) == (math.sqrt, json, 3)
    assert known.source("plain") == "autoseg" and known.added() == ()


def test_a_package_adds_names_and_is_imported_when_one_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        monkeypatch, tmp_path, "reg-one", {"reg_one": "def focal():\n    return 'focal'\n"}, {GROUP: {"focal": "reg_one:focal"}}
    )
    known = registry()
    assert known.names() == ("plain", "whole", "made", "focal") and "focal" in known
    known.check("plain")
    assert "reg_one" not in sys.modules
    assert known.get("focal")() == "focal" and known.get("focal") is known.get("focal")
    assert known.source("focal") == "reg-one 1.0 (reg_one:focal)"


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path, "reg-two", {"reg_two": "tversky = 1\n"}, {GROUP: {"tversky": "reg_two:tversky"}})
    for ask in (registry().get, registry().check):
        with pytest.raises(
            AutosegError, match=r"no loss 'tverski'\n.*did you mean tversky\? known: plain, whole, made, tversky"
        ):
            ask("tverski")


def test_a_name_claimed_twice_is_refused_with_both_sources_and_only_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(
        monkeypatch,
        tmp_path,
        "reg-three",
        {"reg_three": "a = b = 1\n"},
        {GROUP: {"mine": "reg_three:a", "made": "reg_three:b"}},
    )
    install(
        monkeypatch, tmp_path, "reg-four", {"reg_four": "a = c = 2\n"}, {GROUP: {"mine": "reg_four:a", "other": "reg_four:c"}}
    )
    known = registry()
    assert known.names() == ("plain", "whole", "made", "mine", "other")
    with pytest.raises(AutosegError, match=r"'mine' is defined twice: by reg-(three|four) 1.0 .* and by reg-(three|four) 1.0"):
        known.get("mine")
    with pytest.raises(AutosegError, match=r"'made' is defined twice: by autoseg and by reg-three 1.0 \(reg_three:b\)"):
        known.check("made")
    assert known.get("other") == 2
    assert [name for name, _ in known.usable()] == ["plain", "whole", "other"]
    assert "'mine' is defined twice" in caplog.text and "'made' is defined twice" in caplog.text


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("import not_there_at_all\n", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("def broken(:\n", "SyntaxError"),
        ("other = 1\n", "AttributeError"),
    ],
)
def test_a_broken_package_is_named_and_the_others_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, source: str, fault: str
) -> None:
    module = f"reg_broken_{abs(hash(source))}"
    install(monkeypatch, tmp_path, "reg-broken", {module: source}, {GROUP: {"broken": f"{module}:broken"}})
    known = registry()
    with pytest.raises(AutosegError, match=rf"the loss 'broken' of reg-broken 1.0 .* cannot be loaded: {fault}"):
        known.get("broken")
    assert [name for name, _ in known.usable()] == ["plain", "whole", "made"]
    assert "reg-broken 1.0" in caplog.text


def test_what_lacks_a_part_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path, "reg-half", {"reg_half": "SPEC = 1\n"}, {GROUP: {"half": "reg_half"}})
    with pytest.raises(AutosegError, match=r"'half' of reg-half 1.0 \(reg_half\) has no build and no weights"):
        registry(needs=("SPEC", "build", "weights")).get("half")


def test_a_notebook_adds_what_it_just_defined_and_takes_it_back() -> None:
    known = registry()
    known.add("mine", "math:floor")
    assert known.get("mine")(1.5) == 1 and known.names()[-1] == "mine"
    with pytest.raises(AutosegError, match="there is a loss 'mine' already"):
        known.add("mine", 4)
    known.remove("mine")
    assert "mine" not in known
