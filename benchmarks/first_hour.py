"""The first hour of a new user: the five commands of README, as they are printed there, on folders of real images.

    python -m benchmarks.first_hour --data DIR [--sets busi:20,neopolyp:40] [--environment new|this] [--pip "OPTIONS"]
        [--pictures DIR]

DIR holds one folder per set, each with images/ and masks/ of the same names. The first images of a set train, the next ten are
new. With `new` (default) autoseg is installed into a fresh virtual environment first (--pip: options of that pip, such as an
index); `this` uses the running one. Prints seconds and Dice of each command, and planned against real time of the training, and
writes them to WORK/first_hour.json, and what a terminal of 80 columns shows to WORK/SET/terminal.txt; with --pictures also as
pictures of the first set.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import venv
from pathlib import Path
from typing import Any

import cv2
from rich.console import Console
from rich.terminal_theme import MONOKAI

from benchmarks.pictures import shoot

REPOSITORY = Path(__file__).parent.parent
HEADING = "## Your own data in five commands"
NEW_IMAGES = 10
# Class names of the sets that have other classes than README's example.
LABELS = {"neopolyp": "background,neoplastic,non_neoplastic"}
README_LABELS = "background,polyp"
COLUMNS = 80
# Lines at the start and at the end of a picture.
LONG = 24
AS_IT_IS: dict[str, Any] = {"replace_whitespace": False, "drop_whitespace": False}
PAGE = (
    "<meta charset=utf-8><body style='margin:12px;background:{background};color:{foreground}'>"
    "<pre style='font:15px/19px monospace;margin:0'>{code}</pre>"
)


def commands(readme: str) -> list[str]:
    """The five commands."""
    block = re.search(re.escape(HEADING) + r"\n+```bash\n(.*?)```", readme, re.DOTALL)
    assert block is not None, f"README has no block of commands below {HEADING!r}"
    return [line for line in block[1].splitlines() if line.startswith("autoseg_")]


def lay_out(source: Path, folder: Path, count: int) -> None:
    """README's folders: photos, masks, new_photos, reference_masks."""
    masks = {path.stem: path for path in (source / "masks").iterdir()}
    images = [path for path in sorted((source / "images").iterdir()) if path.stem in masks]
    parts = {("photos", "masks"): images[:count], ("new_photos", "reference_masks"): images[count : count + NEW_IMAGES]}
    for (photos, labels), chosen in parts.items():
        (folder / photos).mkdir(parents=True)
        (folder / labels).mkdir()
        for path in chosen:
            shutil.copy(path, folder / photos)
            shutil.copy(masks[path.stem], folder / labels)


def install(folder: Path, options: list[str]) -> tuple[Path, float]:
    """A fresh environment with autoseg: its folder of programs, and seconds."""
    start = time.perf_counter()
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run([programs / "python", "-m", "pip", "install", "-q", *options, str(REPOSITORY)], check=True)
    return programs, time.perf_counter() - start


def play(name: str, count: int, data: Path, work: Path, programs: Path) -> list[dict[str, Any]]:
    """Run the commands for one set."""
    folder = work / name
    lay_out(data / name, folder, count)
    rows = []
    for line in commands((REPOSITORY / "README.md").read_text(encoding="utf-8")):
        line = line.replace(README_LABELS, LABELS.get(name, README_LABELS))
        program, *arguments = shlex.split(line)
        start = time.perf_counter()
        environment = {key: value for key, value in os.environ.items() if key not in ("AUTOSEG_ROOT", "PYTHONPATH")}
        environment["COLUMNS"] = str(COLUMNS)
        ended = subprocess.run(
            [programs / program, *arguments], cwd=folder, env=environment, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        if ended.returncode:
            sys.exit(f"{line} failed:\n{ended.stdout}")
        rows.append({"set": name, "command": program, "seconds": round(seconds, 1), **results(program, folder)})
        with (folder / "terminal.txt").open("a", encoding="utf-8") as stream:
            stream.write(f"$ {line}\n{ended.stdout}\n")
        print(f"{name:12s} {program:30s} {seconds:7.1f} s  {describe(rows[-1])}", flush=True)
    return rows


def draw(text: str, pictures: Path) -> None:
    """What each command showed, as pictures first_hour_1.png and so on."""
    for number, part in enumerate(text.removeprefix("$ ").split("\n$ "), 1):
        lines = [line for one in f"$ {part.strip()}".splitlines() for line in textwrap.wrap(one, COLUMNS, **AS_IT_IS) or [""]]
        if len(lines) > 2 * LONG:
            lines = [*lines[:LONG], "...", *lines[-LONG:]]
        console = Console(record=True, width=COLUMNS, file=io.StringIO())
        console.print("\n".join(lines), markup=False, highlight=False)
        page = console.export_html(theme=MONOKAI, code_format=PAGE)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "page.html"
            path.write_text(page, encoding="utf-8")
            picture, height = pictures / f"first_hour_{number}.png", 24 + 19 * len(lines)
            # Chromium leaves the lower part of small windows empty.
            shoot(path, picture, (760, height + 300))
            drawn = cv2.imread(str(picture))
            assert drawn is not None
            cv2.imwrite(str(picture), drawn[: round(0.8 * height)])


def results(program: str, folder: Path) -> dict[str, Any]:
    """What the files of a command say: Dice by class, planned and real seconds."""
    root = folder / "autoseg_data"
    if program == "autoseg_train":
        (run,) = root.glob("results/*/*/fold_0/run.json")
        record = json.loads(run.read_text(encoding="utf-8"))
        plan = json.loads((run.parent / "plan.json").read_text(encoding="utf-8"))
        timing = plan["models"][record["model"]]["timing"]
        planned, real = round(timing["hours"] * 3600), round(record["seconds"])
        return {"dice": record["dice"], "planned_seconds": planned, "real_seconds": real}
    if program == "autoseg_evaluate":
        scores = json.loads((folder / "new_masks" / "scores.json").read_text(encoding="utf-8"))
        pictures = len(list((folder / "new_masks" / "overlays").glob("*.png")))
        return {"dice": {name: one["pooled"]["dice"] for name, one in scores["classes"].items()}, "overlays": pictures}
    return {}


def describe(row: dict[str, Any]) -> str:
    """The results of a command in one line."""
    parts = [f"{name} {value:.3f}" for name, value in row.get("dice", {}).items()]
    if "planned_seconds" in row:
        parts.append(f"planned {row['planned_seconds']} s, trained {row['real_seconds']} s")
    return ", ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", default="busi:20,neopolyp:40")
    parser.add_argument("--environment", choices=("new", "this"), default="new")
    parser.add_argument("--pip", default="", help="options of pip install")
    parser.add_argument("--work", type=Path, default=Path("first_hour"), help="folder for everything (must not exist)")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="for pictures of the terminal (needs Chromium)")
    options = parser.parse_args()
    options.work.mkdir(parents=True)
    programs, seconds = Path(sys.executable).parent, 0.0
    if options.environment == "new":
        programs, seconds = install(options.work.absolute() / "environment", shlex.split(options.pip))
        print(f"installed in {seconds:.0f} s", flush=True)
    rows = []
    for item in options.sets.split(","):
        name, _, count = item.partition(":")
        rows += play(name, int(count), options.data.absolute(), options.work.absolute(), programs)
    if options.pictures:
        first = options.work.absolute() / options.sets.partition(":")[0]
        draw((first / "terminal.txt").read_text(encoding="utf-8").replace(str(first), "~"), options.pictures)
    total = sum(row["seconds"] for row in rows)
    print(f"all commands: {total / 60:.1f} minutes")
    content = {"install_seconds": round(seconds, 1), "commands": rows, "minutes": round(total / 60, 2)}
    (options.work / "first_hour.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
