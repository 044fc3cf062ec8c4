"""The measurements of autoseg_select on a small set: they continue, and the table says what was measured."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest

from autoseg.schema.scores import Scores
from autoseg.selection.search import read_selection
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Workspace
from benchmarks import select as benchmark
from tests import generated
from tests.selection import world
from tests.selection.world import Jobs

jobs = world.jobs


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Commands run in this process, on the processor."""
    ran: list[str] = []

    def run(command: str, *arguments: object) -> None:
        ran.append(command)
        module = importlib.import_module(f"autoseg.cli.{command.removeprefix('autoseg_')}")
        device = [] if command == "autoseg_convert" else ["--device", "cpu"]
        assert module.main([*map(str, arguments), *device]) == 0

    monkeypatch.setattr(benchmark, "_run", run)
    return ran


@pytest.mark.slow
def test_each_set_is_measured_once(jobs: Jobs, run_here: list[str], tmp_path: Path, monkeypatch, capsys) -> None:
    generated.write_folders(tmp_path / "data" / "busi", "lesion", 20)
    arguments = ["select", "--data", str(tmp_path / "data"), "--work", str(tmp_path / "work"), "--sets", "busi"]
    arguments += ["--hours", "0.1", "--models", "fast_net,good_net", "--alone", "fast_net"]
    monkeypatch.setattr(sys, "argv", arguments)
    benchmark.main()
    (row,) = json.loads((tmp_path / "work" / "select.json").read_text())
    dataset = Workspace.at(tmp_path / "work" / "busi" / benchmark.SELECTED).datasets()[0]
    selection = read_selection(dataset)
    chosen = next(one for one in selection.confirmed if one.name == selection.recommended)
    assert row["chosen"] == chosen.name and row["dice"]["selected"] == pytest.approx(
        [chosen.dice.mean, chosen.dice.low, chosen.dice.high]
    )
    # The network that had all of the time saw none of the held-back cases, and is scored on all of them.
    alone = Workspace.at(tmp_path / "work" / "busi" / "fast_net_alone").datasets()[0].fold("fast_net", 0)
    scored = {case.case for case in read_artefact(alone / "validation" / "scores.json", Scores).cases}
    assert scored == set(selection.held_back) and set(row["dice"]) == {"selected", "fast_net"}
    assert "best of the confirmed ones on 1 of 1 sets" in capsys.readouterr().out
    # What is measured is not measured again; what is lost is continued.
    commands = run_here.copy()
    benchmark.main()
    assert run_here == commands
    (tmp_path / "work" / "select.json").unlink()
    shutil.rmtree(alone)
    benchmark.main()
    assert run_here == [*commands, "autoseg_select", "autoseg_train"]
