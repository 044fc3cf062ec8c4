"""Files and commands of documentation pages, to run them in tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
# `package/module.py`: followed by a block.
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
    """Path -> content of each block below a file name."""
    blocks = dict(_FILE.findall((REPOSITORY / "documentation" / page).read_text(encoding="utf-8")))
    assert blocks, f"{page} shows no file"
    return blocks


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


def install(package: Path, target: Path) -> Path:
    """Build a package and install it into a folder with pip, offline."""
    words = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(target), str(package)]
    result = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return target


def run(lines: list[str], folder: Path, *packages: Path) -> str:
    """Run commands in one process inside `folder`; all must succeed. Returns their output."""
    return run_code(_RUN, folder, *packages, arguments=[json.dumps(lines)])


def fails(line: str, folder: Path, *packages: Path) -> str:
    """Run a command that must end with a user error. Returns its output."""
    result = _python(_RUN, folder, packages, [json.dumps([line])])
    assert result.returncode and f"{line} ended with 2" in result.stderr, result.stdout + result.stderr
    return result.stdout + result.stderr


def run_code(code: str, folder: Path, *packages: Path, arguments: Sequence[str] = ()) -> str:
    """Run Python code. Returns its output."""
    result = _python(code, folder, packages, arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def _python(code: str, folder: Path, packages: Sequence[Path], arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """packages: folders with installed packages. The root is inside `folder`."""
    path = os.pathsep.join([*map(str, packages), str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "AUTOSEG_ROOT": str(folder / "root")}
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
