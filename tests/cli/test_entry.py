"""Exit codes of commands, and their effects on the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import atexit, sys
from autoseg.cli import entry
from autoseg.support import malloc
from autoseg.support.errors import AutosegError

malloc.configure_glibc_malloc = print

@entry.command
def main(arguments=None):
    atexit.register(print, "called at the end")
    {body}

sys.exit(main({arguments}))
"""


def run(body: str, arguments: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE.format(body=body, arguments=arguments)], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("body", "code"), [("return 0", 0), ("return 3", 3), ("raise AutosegError('bad', 'fix it')", 2)])
def test_a_command_ends_with_its_code(body: str, code: int) -> None:
    ended = run(body)
    assert ended.returncode == code
    assert ended.stdout == "called at the end\n"
    assert ("error: bad" in ended.stderr) == (code == 2)


@pytest.mark.parametrize("given", ["['D', '--root', 'a b']", "['--root=a b']"])
def test_commands_in_a_message_need_the_same_root(given: str) -> None:
    assert "with --root 'a b', as in this command" in run("raise AutosegError('bad', 'autoseg_train 1 m 0')", given).stderr
    assert "--root" not in run("raise AutosegError('bad', 'fix it')", given).stderr
    assert "--root" not in run("raise AutosegError('bad', 'autoseg_train 1 m 0')", "['D']").stderr


def test_all_output_is_written() -> None:
    ended = run("print('x' * 3_000_000); return 0")
    assert ended.stdout.count("x") == 3_000_000


def test_other_exceptions_have_a_traceback() -> None:
    ended = run("raise RuntimeError('internal error')")
    assert ended.returncode == 1 and "internal error" in ended.stderr


@pytest.mark.parametrize(("arguments", "own"), [("", True), ("[]", False)])
def test_malloc_is_configured_only_in_the_commands_own_process(arguments: str, own: bool) -> None:
    assert ("7\n" in run("entry.configure_glibc_malloc(arguments, 7); return 0", arguments).stdout) == own


def test_a_command_frees_its_objects_at_the_end() -> None:
    """Triton, which comes with PyTorch, prints a page about "leaked" functions otherwise."""
    kind = "type('Kind', (), {'__del__': lambda self: print('freed', flush=True)})"
    assert "freed" in run(f"one = {kind}(); one.itself = one; return 0", "").stdout


def test_commands_set_one_opencv_thread() -> None:
    assert run("import cv2; print(cv2.getNumThreads(), 'threads'); return 0").stdout.startswith("1 threads")
