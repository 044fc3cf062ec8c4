"""How a command ends: everything written, whoever asked to be called at the end called, and no time spent on taking down."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import atexit, sys
from autoseg.cli import entry
from autoseg.support.errors import AutosegError

class Held:
    def __del__(self):
        print("taken down")

held = Held()

@entry.command
def main(arguments=None):
    sys.argv[0] = {program!r}
    atexit.register(print, "called at the end")
    {body}

sys.argv[0] = {program!r}
sys.exit(main())
"""


def run(body: str, program: str = "/usr/bin/autoseg_train") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", CODE.format(body=body, program=program)], capture_output=True, text=True)


@pytest.mark.parametrize(("body", "code"), [("return 0", 0), ("return 3", 3), ("raise AutosegError('bad', 'mend it')", 2)])
def test_a_program_ends_at_once_with_its_code(body: str, code: int) -> None:
    ended = run(body)
    assert ended.returncode == code
    assert "called at the end" in ended.stdout and "taken down" not in ended.stdout
    assert ("error: bad" in ended.stderr) == (code == 2)


def test_all_that_was_printed_arrives() -> None:
    ended = run("print('x' * 3_000_000); return 0")
    assert ended.stdout.count("x") == 3_000_000


def test_other_exceptions_end_it_as_usual() -> None:
    ended = run("raise RuntimeError('a fault of ours')")
    assert ended.returncode == 1 and "a fault of ours" in ended.stderr and "taken down" in ended.stdout


def test_whoever_calls_a_command_from_a_program_of_their_own_goes_on() -> None:
    ended = run("return 0", program="mine.py")
    assert ended.returncode == 0 and "taken down" in ended.stdout


@pytest.mark.parametrize(("program", "held"), [("/usr/bin/autoseg_train", True), ("mine.py", False)])
def test_memory_is_kept_in_a_process_of_its_own_only(program: str, held: bool) -> None:
    body = "from autoseg.support import allocator; allocator.hold_memory = print; entry.hold_memory(7); return 0"
    assert ("7\n" in run(body, program).stdout) == held


def test_opencv_has_no_threads_of_its_own_in_a_command() -> None:
    assert run("import cv2; print(cv2.getNumThreads(), 'threads'); return 0").stdout.startswith("1 threads")
