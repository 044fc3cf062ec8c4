"""Names of models and numbers of folds are given alike to all commands."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from autoseg.cli import entry
from autoseg.support.errors import AutosegError

COMMANDS = sorted(path.stem for path in Path(entry.__file__).parent.glob("*.py") if not path.stem.startswith("_"))


@pytest.mark.parametrize("words", [["a", "b"], ["a,b"], ["a, b"], ["a,", "b"], ["a,b,"]])
def test_spaces_and_commas_separate_names(words: list[str]) -> None:
    assert entry.listed(words) == ["a", "b"]


@pytest.mark.parametrize(
    ("words", "expected"), [(["all"], None), (["0"], [0]), (["0", "3"], [0, 3]), (["0,3"], [0, 3]), (["0,", "3"], [0, 3])]
)
def test_spaces_and_commas_separate_folds(words: list[str], expected: list[int] | None) -> None:
    assert entry.folds(words) == expected


@pytest.mark.parametrize("words", [["one"], ["0-3"], ["all", "0"], ["-1"], [","], []])
def test_what_are_no_folds_is_refused(words: list[str]) -> None:
    with pytest.raises(AutosegError, match="folds are numbers or 'all'"):
        entry.folds(words)


@pytest.mark.parametrize("name", [one for one in COMMANDS if one != "entry"])
def test_options_for_lists_have_the_same_short_names(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"autoseg.cli.{name}").main(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code in (0, None)
    for long, short in (("--models", "-m"), ("--folds", "-f")):
        assert not re.search(rf"^  {long}\b", text, re.MULTILINE), f"{long} without {short}"
