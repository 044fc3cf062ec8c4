"""Commands with worker processes: same results as with threads, clean end by Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from autoseg import api
from autoseg.support.parallel import _MIN_ITEMS
from autoseg.support.workspace import Workspace
from tests.support.waiting import runs, seen

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
# Like the console script, on a machine with two cores.
COMMAND = """
import sys
from autoseg.support import parallel
parallel.available_cores = lambda: 2
from autoseg.cli.{name} import main
raise SystemExit(main())
"""


def write_many(folder: Path, names: str, picture: np.ndarray) -> None:
    """Enough files for worker processes; four different pictures."""
    folder.mkdir(parents=True)
    for number in range(_MIN_ITEMS):
        path = folder / names.format(number)
        if number < 4:
            assert cv2.imwrite(str(path), np.roll(picture, 5 * number, 0))
        else:
            os.link(folder / names.format(number % 4), path)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with Dataset501_Many: gray images, masks, and shifted masks as predictions."""
    root = tmp_path_factory.mktemp("many")
    folder = root / "raw" / "Dataset501_Many"
    mask = np.zeros((96, 80), np.uint8)
    mask[20:50, 30:60] = 1
    noise = np.random.default_rng(0).integers(0, 90, mask.shape, dtype=np.uint8)
    write_many(folder / "imagesTr", "case{:05}_0000.png", noise + 90 * mask)
    write_many(folder / "labelsTr", "case{:05}.png", mask)
    write_many(root / "predictions", "case{:05}.png", np.roll(mask, 3, 1))
    description = {
        "channel_names": {"0": "gray"}, "labels": {"background": 0, "blob": 1}, "numTraining": _MIN_ITEMS,
        "file_ending": ".png",
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(description))
    return root


def command(name: str, *words: str) -> subprocess.Popen[str]:
    """Start a command in its own process group, as a shell does."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(name=name), *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def group(leader: int) -> list[int]:
    """Running processes of a process group."""
    processes_of_group = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[2]) == leader and runs(int(stat.parent.name)):
                processes_of_group.append(int(stat.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return processes_of_group


@pytest.mark.slow
def test_processes_and_threads_give_the_same_bytes(dataset: Path) -> None:
    fingerprint = command("fingerprint", "501", "--root", str(dataset))
    process_count = 0
    while fingerprint.poll() is None:
        process_count = max(process_count, len(group(fingerprint.pid)))
    assert fingerprint.returncode == 0 and process_count >= 3, "no worker processes"
    path = Workspace.at(dataset).dataset(501).fingerprint
    by_processes = path.read_bytes()
    path.unlink()
    api.fingerprint(501, dataset)
    assert path.read_bytes() == by_processes

    references = dataset / "raw" / "Dataset501_Many" / "labelsTr"
    scored = command("evaluate", str(dataset / "predictions"), str(references), "-o", str(dataset / "processes"))
    message = f"scores.json, scores.csv and scores_summary.csv are in {dataset / 'processes'}\n"
    assert (scored.communicate()[1], scored.returncode) == (message, 0)
    api.evaluate(dataset / "predictions", references, dataset / "threads")
    for name in ("scores.json", "scores.csv"):
        assert (dataset / "processes" / name).read_bytes() == (dataset / "threads" / name).read_bytes()


@pytest.mark.parametrize(("processes", "seconds"), [(3, 0.1), (3, 0.5), (5, 0)])
def test_ctrl_c_prints_one_word_and_leaves_no_process_or_file(dataset: Path, processes: int, seconds: float) -> None:
    """Ctrl-C `seconds` after `processes` have started: during imports of the fork server, and during the work."""
    preprocessed = Workspace.at(dataset).dataset(501).preprocessed
    (preprocessed / "fingerprint.json").unlink(missing_ok=True)
    run = command("fingerprint", "501", "--root", str(dataset))
    assert seen(lambda: len(group(run.pid)) >= processes or run.poll() is not None)
    time.sleep(seconds)
    os.killpg(run.pid, signal.SIGINT)
    output, errors = run.communicate(timeout=60)
    assert (run.returncode, output, errors) == (130, "", "interrupted\n")
    assert seen(lambda: not group(run.pid)), "a process is still running"
    assert not preprocessed.exists() or not list(preprocessed.iterdir())


SCRIPT = """
import sys
from autoseg import api
from autoseg.cli import evaluate
print("begun")
predictions, references, output = sys.argv[1:]
api.evaluate(predictions, references, output)
print(evaluate.main([predictions, references, "-o", output]))
"""


def test_script_needs_no_main_guard(dataset: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    words = [str(dataset / "predictions"), str(dataset / "raw/Dataset501_Many/labelsTr"), str(tmp_path / "scores")]
    ended = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, check=False)
    lines = ended.stdout.splitlines()
    message = f"scores.json, scores.csv and scores_summary.csv are in {tmp_path / 'scores'}\n"
    assert (ended.returncode, ended.stderr, lines.count("begun"), lines[-1]) == (0, message, 1, "0")
