"""The filed example: its files agree with one another, its commands exist, and nothing names a machine."""

from __future__ import annotations

import csv
import re
import shlex
from argparse import ArgumentParser
from importlib import import_module
from pathlib import Path

import cv2
import pytest

from autoseg.card.checklists import CLAIM, TRIPOD_AI
from autoseg.comparison.paper_tables import KEYS
from tests.documentation.pages import REPOSITORY

EXAMPLE = REPOSITORY / "documentation" / "example"
TEXTS = [path for path in sorted(EXAMPLE.iterdir()) if path.suffix in (".md", ".tex", ".csv", ".html")]
TABLES = sorted(EXAMPLE.glob("comparison_*.csv"))
# A folder of a machine, a home, an address, a name of a host.
MACHINE = re.compile(r"(?<![\w./<])/(?:root|home|work|tmp|Users|mnt|data|usr|var)\b|localhost|\b\d+\.\d+\.\d+\.\d+\b|[A-Z]:\\")


def markdown_rows(text: str) -> list[list[str]]:
    """Rows of all tables of a page, as texts without escapes."""
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    return [[re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell.strip()).replace("−", "-") for cell in row] for row in cells]


def latex_rows(text: str) -> list[list[str]]:
    lines = [line.removesuffix(r"\\") for line in text.splitlines() if line.endswith(r"\\")]
    plain = [line.replace(r"$\pm$", "±").replace("$-$", "-").replace(r"\_", "_").replace(r"\textless{}", "<") for line in lines]
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", line)] for line in plain]


def shown(row: dict[str, str]) -> list[str]:
    """A row of a CSV as the other files print it."""
    cells: list[str] = []
    for name, value in row.items():
        if name in ("dataset", "by") and (name == "dataset" or "stratum" in row):
            continue
        if name.endswith(" deviation") and name.removesuffix(" deviation") in row:
            cells[-1] = f"{cells[-1]} ± {value}" if value else cells[-1]
        elif name.endswith(" high"):
            cells[-1] = f"{cells[-1]} to {value}" if value else ""
        else:
            cells.append(value)
    return [cell or "–" for cell in cells]


def test_there_are_all_tables_and_files() -> None:
    assert {path.stem.removeprefix("comparison_") for path in TABLES} == set(KEYS)
    for name in ("comparison.md", "comparison.tex", "tables.pdf", "MODEL_CARD.md", "model_card.html", "report.png"):
        assert (EXAMPLE / name).stat().st_size > 100, name
    assert sum(path.stat().st_size for path in EXAMPLE.iterdir()) < 3e6
    assert (EXAMPLE / "tables.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_markdown_and_latex_have_the_numbers_of_the_csv(path: Path) -> None:
    rows = [shown(row) for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())]
    markdown = markdown_rows((EXAMPLE / "comparison.md").read_text(encoding="utf-8"))
    latex = latex_rows((EXAMPLE / "comparison.tex").read_text(encoding="utf-8"))
    assert rows
    for row in rows:
        assert row in markdown and row in latex, row


def test_summary_card_and_tables_agree() -> None:
    page = " ".join((EXAMPLE / "comparison.md").read_text(encoding="utf-8").replace("\\", "").split())
    (first, *_) = csv.DictReader((EXAMPLE / "comparison_models.csv").read_text(encoding="utf-8").splitlines())
    named, dice = re.search(r"of these trainings, (\S+) (?:\(\w+ start\) )?has the highest mDSC \(([\d.]+) %", page).groups()
    assert named == first["model"] and float(dice) == pytest.approx(float(first["mDSC"]), abs=0.51)
    card = (EXAMPLE / "MODEL_CARD.md").read_text(encoding="utf-8").replace("\\", "")
    of_card = {row["model"]: row for row in csv.DictReader((EXAMPLE / "comparison_models.csv").read_text().splitlines())}
    mean = re.search(r"efficientnet_lite0_upernet\*\*: mDSC ([\d.]+) ±", card).group(1)
    assert 100 * float(mean) == pytest.approx(float(of_card["efficientnet_lite0_upernet"]["mDSC"]), abs=0.51)
    html = (EXAMPLE / "model_card.html").read_text(encoding="utf-8")
    for item in (*CLAIM, *TRIPOD_AI):
        assert f"**{item.number} {item.topic}" in card and f"<dt>{item.number} {item.topic.replace(chr(39), '&#39;')}" in html
    assert mean in html


def test_cases_of_the_metadata_are_those_that_are_compared() -> None:
    cases = list(csv.DictReader((EXAMPLE / "cases.csv").read_text().splitlines()))
    strata = csv.DictReader((EXAMPLE / "comparison_strata.csv").read_text().splitlines())
    counted = {row["stratum"]: int(row["n"]) for row in strata if row["by"] == "level"}
    assert counted == {level: sum(row["level"] == level for row in cases) for level in {row["level"] for row in cases}}


class Parsed(BaseException):
    """Raised in place of what a command does after its options."""


def test_commands_are_real(monkeypatch: pytest.MonkeyPatch) -> None:
    block = re.search(r"```bash\n(.*?)```", (EXAMPLE / "README.md").read_text(encoding="utf-8"), re.DOTALL).group(1)
    commands = [shlex.split(line) for line in block.splitlines() if line.startswith("autoseg_")]
    parse = ArgumentParser.parse_args

    def stop(parser: ArgumentParser, arguments: list[str]) -> None:
        parse(parser, arguments)
        raise Parsed

    monkeypatch.setattr(ArgumentParser, "parse_args", stop)
    for command, *arguments in commands:
        # argparse ends with SystemExit at an unknown option.
        with pytest.raises(Parsed):
            import_module(f"autoseg.cli.{command.removeprefix('autoseg_')}").main(arguments)
    assert len(commands) == 7


def test_no_text_names_a_machine() -> None:
    for path in TEXTS:
        found = MACHINE.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path.name}: {found}"


def test_pictures_are_pictures_of_the_named_widths() -> None:
    widths = {path.stem: cv2.imread(str(path)).shape[1] for path in EXAMPLE.glob("*.png")}
    assert widths["report"] == widths["report_dark"] > 2 * widths["report_narrow"]
