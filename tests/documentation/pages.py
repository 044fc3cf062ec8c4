"""Pages of the documentation as something to run: their files, and their commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
# `package/module.py`:   then a block.
_FILE = re.compile(r"^`([\w./-]+)`[^\n`]*:\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
_RUN = """
import importlib, json, shlex, sys
for line in json.loads(sys.argv[1]):
    command, *arguments = shlex.split(line)
    print("$", line, flush=True)
    code = importlib.import_module("autoseg.cli." + command.removeprefix("autoseg_")).main(arguments)
    if code:
        sys.exit(f"{line} ended with {code}")
"""


def files(page: str) -> dict[str, str]:
    """Path -> content of each block that stands under a file's name."""
    found = dict(_FILE.findall((REPOSITORY / "documentation" / page).read_text(encoding="utf-8")))
    assert found, f"{page} shows no file"
    return found


def commands(page: str, first: str) -> list[str]:
    """The autoseg commands of the shell block that begins with a line."""
    text = (REPOSITORY / "documentation" / page).read_text(encoding="utf-8")
    (block,) = [one for one in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) if one.startswith(first)]
    return [line for line in block.splitlines() if line.startswith("autoseg_")]


def write(folder: Path, content: Mapping[str, str]) -> Path:
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def installed(package: Path, target: Path) -> Path:
    """A folder with a package built and installed by pip, from what is on this machine."""
    words = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(target), str(package)]
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def run(lines: list[str], folder: Path, *packages: Path) -> str:
    """What commands print, run one after the other in one process inside `folder`; all of them have to succeed."""
    return run_code(_RUN, folder, *packages, arguments=[json.dumps(lines)])


def fails(line: str, folder: Path, *packages: Path) -> str:
    """What a command prints that ends with the code of user's mistakes."""
    done = _python(_RUN, folder, packages, [json.dumps([line])])
    assert done.returncode and f"{line} ended with 2" in done.stderr, done.stdout + done.stderr
    return done.stdout + done.stderr


def run_code(code: str, folder: Path, *packages: Path, arguments: Sequence[str] = ()) -> str:
    """What Python code prints."""
    done = _python(code, folder, packages, arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _python(code: str, folder: Path, packages: Sequence[Path], arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """packages: folders of installed ones. The root is inside the folder."""
    path = os.pathsep.join([*map(str, packages), str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "AUTOSEG_ROOT": str(folder / "root")}
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
