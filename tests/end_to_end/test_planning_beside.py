"""Planning as a command: the images are measured in processes of their own while PyTorch loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from autoseg import api
from autoseg.cli import convert
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Plan, Splits
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Dataset, Workspace
from tests import generated

# Each reading of a file, and the process it was read in.
CODE = """
import os, sys
from autoseg.support import workers
workers.available_cores = lambda: 4
sys.argv[0] = "autoseg_plan_and_preprocess"
import autoseg.io.kept as kept
reading = kept.read_case
def told(paths):
    with open(sys.argv[2], "a") as stream:
        stream.write(f"{os.getpid()} {paths[0].name}\\n")
    return reading(paths)
kept.read_case = told
from autoseg import api
api.plan_and_preprocess(501, models=["unet"], device="cpu", root=sys.argv[1])
print(os.getpid())
"""


def prepared(root: Path) -> Dataset:
    images, masks = generated.write_folders(root / "files", "heart", 6)
    words = ["folders", "--images", str(images), "--masks", str(masks), "--name", "X", "--groups", r"(patient\d+)"]
    labels = ",".join(generated.SPECIFICATION["heart"].labels)
    assert convert.main(["--root", str(root), *words, "--labels", labels]) == 0
    return Workspace.at(root).dataset(501)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are copied on Linux only")
def test_a_command_reads_each_image_once_and_decides_as_the_library_does(tmp_path: Path) -> None:
    here, there = prepared(tmp_path / "here"), prepared(tmp_path / "there")
    api.plan_and_preprocess(501, models=["unet"], device="cpu", root=tmp_path / "here")
    log = tmp_path / "log"
    words = [sys.executable, "-c", CODE, str(tmp_path / "there"), str(log)]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    readings = [line.split() for line in log.read_text().splitlines()]
    assert len({name for _, name in readings}) == len(readings) == 6
    processes = {process for process, _ in readings}
    assert len(processes) > 1 and processes.isdisjoint({ended.stdout.strip()})
    for path, kind in (("fingerprint", Fingerprint), ("plan", Plan), ("splits", Splits)):
        assert read_artefact(getattr(there, path), kind) == read_artefact(getattr(here, path), kind)
    (store,) = {path.name for path in here.preprocessed.iterdir() if path.is_dir()}
    for name in ("images.npy", "labels.npy", "foreground.npy"):
        assert np.array_equal(np.load(there.preprocessed / store / name), np.load(here.preprocessed / store / name))


@pytest.mark.skipif(sys.platform != "linux", reason="processes are copied on Linux only")
def test_faults_are_listed_as_ever_and_nothing_is_left(tmp_path: Path) -> None:
    dataset = prepared(tmp_path)
    for path in sorted((dataset.raw / "imagesTr").iterdir())[:2]:
        path.write_bytes(b"no image")
    code = """
import sys
from autoseg.support import workers
workers.available_cores = lambda: 4
sys.argv[0] = "autoseg_plan_and_preprocess"
from autoseg.cli import plan_and_preprocess
raise SystemExit(plan_and_preprocess.main(["501", "--models", "unet", "--root", sys.argv[1]]))
"""
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "the dataset has 2 faults" in ended.stderr and "Traceback" not in ended.stderr
    assert not list(dataset.preprocessed.iterdir())
