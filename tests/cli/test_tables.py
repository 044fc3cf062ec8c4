"""Tables on terminals of 80, 120 and 160 columns: no word is broken, no line is too long, nothing is missing."""

from __future__ import annotations

import io
import os
import pty
import re
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from autoseg.cli import _tables, models, plan_and_preprocess
from autoseg.comparison.tables import tables
from autoseg.models import registry
from autoseg.planning.explain import explain, grouped
from autoseg.planning.planner import make_plan
from autoseg.runner.table import HEADINGS, lines
from autoseg.schema.comparison import Comparison
from autoseg.schema.plan import Plan
from autoseg.schema.runner import Job, JobRow
from autoseg.support.files import read_artefact
from tests.planning.fingerprints import FakeDataset

SAMPLES = Path(__file__).parent.parent / "schema" / "samples"
WIDTHS = (80, 120, 160)
MESSAGE = "the loss or gradient was NaN or infinite in 20 steps in a row: lower the learning rate with --set"


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", str(request.param))
    return int(request.param)


@pytest.fixture(scope="module")
def plan_of_all() -> Plan:
    """A plan of one model, with the decisions repeated for every architecture, and their long names."""
    fake = FakeDataset()
    plan = make_plan(fake.fingerprint, fake.spec, "auto", ["unet"], 8 << 30, "cpu")
    names = registry.names()
    general = [one for one in plan.decisions if not one.subject.startswith("models.")]
    of_models = [
        replace(one, subject=one.subject.replace("models.unet.", f"models.{name}."))
        for one in plan.decisions
        if one.subject.startswith("models.")
        for name in names
    ]
    return replace(plan, models=dict.fromkeys(names, plan.models["unet"]), decisions=(*general, *of_models))


def check(shown: str, width: int, cells: list[str]) -> None:
    """Every word of the cells is in the text as often as needed, and no line is too long."""
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= width
    words = set(shown.split())
    assert not {word for cell in cells for word in cell.split()} - words


def test_decisions_of_all_models(plan_of_all: Plan, width: int, capsys: pytest.CaptureFixture[str]) -> None:
    plan_and_preprocess._show_decisions(plan_of_all)
    shown = capsys.readouterr().out
    check(shown, width, [cell for one, _ in grouped(plan_of_all) for cell in (one.value, one.reason, one.source)])
    text = " ".join(shown.split())
    (epochs,) = (one for one in plan_of_all.decisions if one.subject == "training.epochs")
    assert f"training.epochs: {epochs.value} {epochs.reason}" in text and re.search(r"\d+ training images are \d+", text)
    assert "learning_rate of all models: 0.0003 trained from random weights" in text


def test_decisions_name_the_models_they_are_for(plan_of_all: Plan, width: int, capsys: pytest.CaptureFixture[str]) -> None:
    first, *rest = registry.names()
    subject = f"models.{first}.learning_rate"
    other = [replace(one, value="7") if one.subject == subject else one for one in plan_of_all.decisions]
    plan_and_preprocess._show_decisions(replace(plan_of_all, decisions=tuple(other)))
    text = " ".join(capsys.readouterr().out.split())
    assert f"learning_rate of {first}: 7 trained" in text and f"learning_rate of {', '.join(rest)}: 0.0003" in text


def test_decisions_of_a_model_with_dots_in_its_name(plan_of_all: Plan) -> None:
    name = "timm:convnext.fb_in22k"
    decisions = tuple(replace(one, subject=one.subject.replace(".unet.", f".{name}.")) for one in plan_of_all.decisions)
    plan = replace(plan_of_all, models={name: plan_of_all.models["unet"]}, decisions=decisions)
    assert f"models.{name}.learning_rate" in [one.subject for one in explain(plan)]
    assert "learning_rate" in [one.subject for one, models in grouped(plan) if models == [name]]


def test_list_of_models(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert models.main([]) == 0
    shown = capsys.readouterr().out
    check(shown, width, [*registry.names(), "specialist", "standard*"])
    assert "46.3 M" in " ".join(shown.split()) and "2021." in shown


@pytest.mark.parametrize("version", [1, 2])
def test_comparison(version: int, width: int, capsys: pytest.CaptureFixture[str]) -> None:
    for table in tables(read_artefact(SAMPLES / f"comparison_v{version}.json", Comparison)):
        _tables.show_table(table.title, table.headings, table.rows, table.keys)
        _tables.show_text(table.note, "  ")
        shown = capsys.readouterr().out
        check(shown, width, [table.title, table.note, *table.headings, *(cell for row in table.rows for cell in row)])


def test_a_divided_table_repeats_the_columns_that_name_a_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    headings = ("class", "model", *(f"metric{number}" for number in range(9)))
    _tables.show_table("", headings, [("lesion", "unet", *(f"{number}.25 ± 0.5" for number in range(9)))], keys=2)
    rows = [line for line in capsys.readouterr().out.splitlines() if "lesion" in line]
    assert len(rows) > 1 and all("unet" in row for row in rows)


def test_jobs_with_long_messages(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    job = Job(dataset="Dataset501_Polyp", model="efficientnet_lite0_upernet", fold=0)
    row = JobRow(job=job, state="failed", attempts=3, seconds=61.0, where="local, process 12345", message=MESSAGE)
    _tables.show_table("", HEADINGS, lines([row]), keys=3)
    check(capsys.readouterr().out, width, list(lines([row])[0]))


def test_a_live_table_leaves_out_the_last_columns(width: int) -> None:
    from rich.console import Console

    job = Job(dataset="Dataset501_Polyp", model="efficientnet_lite0_upernet", fold=0)
    rows = lines([JobRow(job=job, state="failed", attempts=3, seconds=61.0, where="x", message=MESSAGE * 2)])
    console = Console(width=width, file=io.StringIO())
    console.print(_tables.fitting_columns(HEADINGS, rows, width, "1 failed"))
    shown = console.file.getvalue()
    assert "efficientnet_lite0_upernet" in shown and MESSAGE.split()[-1] not in shown
    assert len([line for line in shown.splitlines() if line.strip()]) == 4


def test_long_paths_are_not_broken(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    path = "/data/" + "a_long_folder/" * 20 + "mask.png"
    _tables.show_table("", ("case", "warning"), [("one", f"the mask {path} is empty")])
    assert path in capsys.readouterr().out


def test_tables_in_files_are_plain_text_with_unwrapped_titles(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    title = "fold 0: held-out cases at their own size [the best of 6 epochs]"
    _tables.show_table(title, ("class", "Dice"), [("lesion", "0.176"), ("[red]", "0.5")])
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == title
    assert "lesion   0.176" in shown and "[red]    0.5" in shown and "\x1b" not in shown


def test_the_width_of_a_terminal_is_used() -> None:
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    reader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    code = "from autoseg.cli import _tables; _tables.show_table('', ('', ''), [('a specialist ' * 20, 'standard* ' * 20)])"
    ended = subprocess.run([sys.executable, "-c", code], stdin=terminal, stdout=terminal, env=environment, check=True)
    os.close(terminal)
    shown = os.read(reader, 1 << 16).decode()
    os.close(reader)
    check(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", shown), 80, ["specialist", "standard*"])
    assert ended.returncode == 0
