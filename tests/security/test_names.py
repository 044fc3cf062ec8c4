"""Names that come from files or options are data: none leads out of its folder, and none ends the process."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from autoseg import api
from autoseg.audit.gallery import write_gallery
from autoseg.cli import (
    audit,
    compare,
    convert,
    evaluate,
    explain,
    export,
    find_best,
    fingerprint,
    plan_and_preprocess,
    predict,
    review,
    run,
    train,
)
from autoseg.io import Case, read_image, write_image, write_label
from autoseg.io.raw_dataset import RawDataset
from autoseg.prediction.bundle import CONTENTS, read_bundle
from autoseg.prediction.files import predict_files
from autoseg.prediction.predictor import Predictor
from autoseg.schema.audit import Audit, AuditFinding
from autoseg.schema.dataset import label_scheme
from autoseg.schema.limits import is_file_name, is_path_below
from autoseg.support.errors import AutosegError
from autoseg.support.files import parse_artefact
from autoseg.support.workspace import Dataset, Workspace
from dataset_conversion.source import Source
from dataset_conversion.writer import NewCase, write_dataset
from tests import generated
from tests.prediction.stand_in import SPEC, picture, trained
from tests.schema.test_artefacts import BY_NAME, sample

# For names of one file. A path below the folder may hold "a/b".
EVIL_NAMES = (
    "../victim", "../../../victim", "/tmp/victim", "..", ".", "", "a/b", "a\\b", "..\\victim", "C:\\victim", "c:victim",
    "\\\\server\\share", "a\0b", "a\nb", "\x1b[2J", "x" * 300, "é" * 200, "\ud800", "\udcfc",
)  # fmt: skip
EVIL_PATHS = tuple(name for name in EVIL_NAMES if name not in ("a/b", "a\\b"))
# Artefact -> where its names are: keys of the JSON, "*" for the first of several, "KEY" for a name of an object.
NAMES = {
    "arrays": ["cases.KEY"],
    "audit": ["dataset", "models.*", "cases.KEY", "findings.*.case", "references.KEY"],
    "best": ["dataset", "models.*", "candidates.*.models.*"],
    "bundle": ["dataset", "members.*.model"],
    "dataset": ["labels.KEY", "groups.KEY"],
    "explanation": ["dataset", "model", "heatmaps.*.case", "heatmaps.*.name", "heatmaps.*.file"],
    "external": ["dataset", "model", "external"],
    "fingerprint": ["dataset", "cases.*.case"],
    "grid": ["rows.*.job.dataset", "rows.*.job.model"],
    "omnimodel": ["prompts.KEY", "questions.*.label"],
    "plan": ["dataset", "preprocessing.KEY", "preprocessing.*.key", "models.KEY", "models.*.model", "models.*.preprocessing"],
    "prediction": ["dataset", "labels.KEY"],
    "run": ["dataset", "model"],
    "scores": ["classes.KEY"],
    "sources": ["cases.KEY"],
    "splits": ["folds.*.train.*", "folds.*.validation.*"],
}
PATHS = {
    "audit": ["findings.*.suggestion"],
    "bundle": ["files.KEY", "members.*.weights", "members.*.run", "members.*.plan", "description"],
    "omnimodel": ["questions.*.case"],
    "prediction": ["cases.*.case", "cases.*.output"],
    "scores": ["cases.*.case"],
    "second_reader": ["cases.*.case"],
}


def with_name(content: Any, place: str, name: str) -> Any:
    """The content of an artefact with this name in the place."""
    head, _, rest = place.partition(".")
    if head == "KEY":
        first = next(iter(content))
        return {name: content[first], **{key: value for key, value in content.items() if key != first}}
    if head == "*":
        head = next(iter(content)) if isinstance(content, dict) else 0
    copy = dict(content) if isinstance(content, dict) else list(content)
    copy[head] = with_name(content[head], rest, name) if rest else name
    return copy


@pytest.mark.parametrize("kind", sorted({*NAMES, *PATHS}))
def test_every_artefact_refuses_evil_names_when_it_is_opened(kind: str) -> None:
    artefact = BY_NAME[kind]
    content = json.loads(sample(artefact, artefact.VERSION).read_text())
    opened = []
    for places, evil in ((NAMES.get(kind, []), EVIL_NAMES), (PATHS.get(kind, []), EVIL_PATHS)):
        for place in places:
            for name in evil:
                if name == "" and place in ("findings.*.suggestion", "fingerprint"):
                    continue  # "" means that there is none.
                try:
                    parse_artefact(json.dumps(with_name(content, place, name)), artefact, f"{kind}.json")
                except AutosegError as error:
                    assert f"{kind}.json" in error.problem
                else:
                    opened.append((place, name))
    assert not opened


@pytest.mark.parametrize("name", [
    "polyp", "left ventricle", "Übergang", "a.b", "...", ".hidden", "-rf", "ab:c", "12:30", "~", "con", "x" * 255, "日本",
])  # fmt: skip
def test_odd_names_that_do_no_harm_are_allowed(name: str) -> None:
    assert is_file_name(name) and is_path_below(f"folder/{name}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace with a converted dataset, deep enough that names with ../../../ lead to a victim next to it."""
    folder = tmp_path / "a" / "b" / "root"
    images, masks = generated.write_folders(tmp_path / "source", "lesion", 6)
    api.convert_folders(images, masks, "X", labels=["background", "lesion"], root=folder)
    for victim in (tmp_path / "victim", tmp_path / "a" / "victim", tmp_path / "a" / "b" / "victim", folder / "victim"):
        victim.mkdir()
        (victim / "keep.txt").write_text("irreplaceable")
    return folder


def files_below(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def untouched(tmp_path: Path, root: Path) -> Iterator[None]:
    """What lies outside preprocessed/ and results/ is the same afterwards, and these hold no file that was not there."""
    before = files_below(tmp_path)
    yield
    after = files_below(tmp_path)
    assert {path for path in after if path.name not in ("dataset.json", "plan.json", "best.json")} <= before.keys()
    assert all(path.exists() and (path.suffix == ".json" or after[path] == content) for path, content in before.items())


COMMANDS = {
    "fingerprint": lambda root: fingerprint.main(["501", "--root", root]),
    "plan": lambda root: plan_and_preprocess.main(["501", "--root", root, "--models", "unet", "--protocol", "quick"]),
    "train": lambda root: train.main(["501", "unet", "0", "--root", root]),
    "run": lambda root: run.main(["--datasets", "501", "--root", root]),
    "predict": lambda root: predict.main(["-i", f"{root}/raw", "-o", f"{root}/out", "-d", "501", "-m", "best", "--root", root]),
    "find_best": lambda root: find_best.main(["501", "--root", root]),
    "compare": lambda root: compare.main(["501", "--root", root]),
    "audit": lambda root: audit.main(["501", "--root", root]),
    "explain": lambda root: explain.main(["501", "unet", "0", "--root", root]),
}


@pytest.mark.parametrize("evil", ["../../../victim", "/tmp/victim", "a\0b"])
@pytest.mark.parametrize("command", ["fingerprint", "plan", "train"])
@pytest.mark.parametrize("what", ["class", "case"])
def test_commands_refuse_evil_names_of_a_description(
    root: Path, untouched: None, command: str, what: str, evil: str, capsys: pytest.CaptureFixture[str]
) -> None:
    description = root / "raw" / "Dataset501_X" / "dataset.json"
    content = json.loads(description.read_text())
    if what == "class":
        content["labels"] = {"background": 0, evil: 1}
    else:
        files = {"images": ["imagesTr/lesion_000_0000.png"], "label": "labelsTr/lesion_000.png"}
        content["dataset"] = {evil: files, "b": files}
    description.write_text(json.dumps(content))
    if command == "train":
        _write_plan(root, "resize_64x64")
    assert COMMANDS[command](str(root)) == 2
    assert "dataset.json" in capsys.readouterr().err


def _write_plan(root: Path, key: str, model: str = "unet") -> None:
    from autoseg.schema import serde
    from tests.schema.test_serde import a_plan

    content = json.loads(serde.to_json(a_plan()))
    content["dataset"] = "Dataset501_X"
    config = {**next(iter(content["preprocessing"].values())), "key": key}
    planned = {**next(iter(content["models"].values())), "preprocessing": key, "model": model}
    folder = root / "preprocessed" / "Dataset501_X"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps({**content, "preprocessing": {key: config}, "models": {model: planned}}))


@pytest.mark.parametrize("evil", ["../../../victim", "..", "victim/../../../victim", "/tmp/victim"])
@pytest.mark.parametrize("command", ["train", "run"])
@pytest.mark.parametrize("what", ["preprocessing", "model"])
def test_commands_refuse_evil_names_of_a_plan(
    root: Path, untouched: None, command: str, what: str, evil: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_plan(root, evil if what == "preprocessing" else "p", "unet" if what == "preprocessing" else evil)
    assert COMMANDS[command](str(root)) == 2
    assert "plan.json" in capsys.readouterr().err


def test_an_evil_choice_of_models_is_refused(root: Path, untouched: None, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(sample(BY_NAME["best"], 2).read_text())
    folder = root / "results" / "Dataset501_X"
    folder.mkdir(parents=True)
    (folder / "best.json").write_text(json.dumps({**content, "models": ["../../../victim"]}))
    assert COMMANDS["predict"](str(root)) == 2
    assert "best.json: models[0]" in capsys.readouterr().err


@pytest.mark.parametrize("evil", ["../../../victim", "..", "/tmp/victim", "a\nb", "un*"])
def test_evil_models_and_datasets_of_options_are_refused(
    root: Path, untouched: None, evil: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_plan(root, "p")
    where, images, out = ["--root", str(root)], str(tmp_path / "source" / "images"), str(tmp_path / "out")
    calls = [
        lambda: train.main(["501", evil, "0", *where]),
        lambda: run.main(["--datasets", "501", "--models", evil, *where]),
        lambda: predict.main(["-i", images, "-o", out, "-d", "501", "-m", evil, *where]),
        lambda: find_best.main(["501", "-m", evil, *where]),
        lambda: export.main(["501", evil, "-o", f"{out}.zip", *where]),
        lambda: compare.main(["501", "-m", evil, *where]),
        lambda: audit.main(["501", "-m", evil, *where]),
        lambda: explain.main(["501", evil, "0", *where]),
        lambda: evaluate.main(["501", "--external", "501", "-m", evil, *where]),
        lambda: review.main([evil, *where]),
        lambda: predict.main(["-i", images, "-o", out, "-d", evil, "-m", "unet", *where]),
        lambda: plan_and_preprocess.main([evil, *where]),
        lambda: convert.main([*where, "folders", "--images", images, "--masks", images, "--name", evil]),
    ]
    for number, call in enumerate(calls):
        assert call() == 2, number
        assert "error: " in capsys.readouterr().err
    assert not Path(out).exists()


@pytest.mark.parametrize("evil", ["../../victim", "a/b", "a\0b", "a\nb"])
def test_converters_write_no_evil_class_and_no_evil_case(
    root: Path, untouched: None, evil: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    arguments = ["--images", str(source / "images"), "--masks", str(source / "masks"), "--name", "Y"]
    assert convert.main(["--root", str(root), "folders", *arguments, "--labels", f"background,{evil}"]) == 2
    assert "cannot name a class" in capsys.readouterr().err
    image, mask = (np.array(part) for part in generated.draw("lesion", 0))
    cases = [NewCase(name=evil, images=[source / "images" / "lesion_000.png"], label=mask)]
    assert image.ndim == 3
    with pytest.raises(AutosegError, match="cannot name a case"):
        write_dataset(Dataset(root, "Dataset502_Y"), SPEC, cases)


def test_a_class_of_a_published_table_with_a_slash_is_renamed_with_a_note(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    image, mask = picture()
    write_image(tmp_path / "coco" / "a.png", image)
    outline = [[20.0, 10.0, 60.0, 10.0, 60.0, 30.0, 20.0, 30.0]]
    table = {
        "images": [{"id": 1, "file_name": "a.png", "height": mask.shape[0], "width": mask.shape[1]}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": outline}],
        "categories": [{"id": 1, "name": "bladder/../uterus"}],
    }
    (tmp_path / "coco" / "t.json").write_text(json.dumps(table))
    report = api.convert("coco", tmp_path / "coco", name="Coco", root=tmp_path / "root")
    assert list(report.spec.labels) == ["background", "bladder_.._uterus"]
    assert "the class 'bladder/../uterus' is written as 'bladder_.._uterus'" in report.record.notes


@pytest.mark.parametrize("name", [name for name in EVIL_PATHS if "\ud800" not in name and name not in ("", ".", "\udcfc")])
def test_members_of_archives_and_bundles_with_evil_names_are_refused(tmp_path: Path, name: str) -> None:
    info = zipfile.ZipInfo("x")
    info.filename = name  # The constructor would cut it at a zero.
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(CONTENTS, "{}")
        archive.writestr(info, b"x")
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    stored = zipfile.ZipFile(tmp_path / "set.zip").namelist()[1]
    if not is_path_below(stored):  # Python's reader cuts names at a zero too.
        for opener in (Source, read_bundle):
            with pytest.raises(AutosegError, match=r"unsafe path|leads out"):
                opener(tmp_path / "set.zip")
    if "\0" not in name:
        with pytest.raises(AutosegError, match="unsafe path"):
            Source(tmp_path / "set.tar")


def test_paths_in_archives_are_no_longer_than_on_disk(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("/".join(["a" * 100] * 60), b"x")
    with pytest.raises(AutosegError, match="unsafe path"):
        Source(tmp_path / "set.zip")


def test_names_in_pages_are_text(tmp_path: Path) -> None:
    """File names may hold all but a slash, so that a name cannot end a script, but it can begin a tag or a comment."""
    evil = "<img src=x onerror=alert(1)> <!--<script> ' \" & {{ 7 * 7 }}"
    assert is_file_name(evil)
    image, mask = picture()
    write_image(tmp_path / "a.png", image)
    write_label(tmp_path / "b.png", mask)
    finding = AuditFinding(
        id=f"d000_{evil}", case=evil, kind="conflicting_duplicates", label=evil, score=0.5, reason=evil, box=(0, 0, 5, 5),
        suggestion="",
    )  # fmt: skip
    found = Audit(dataset=evil, models=(evil,), cases={evil: 0.5}, findings=(finding,), references={})
    scheme = label_scheme({"background": 0, evil: 1}, None)
    write_gallery(tmp_path / "gallery.html", found, {evil: Case(evil, (tmp_path / "a.png",), tmp_path / "b.png")}, {}, scheme)
    page = (tmp_path / "gallery.html").read_text()
    assert "<img src=x" not in page and "<!--<script>" not in page and "<script> '" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page and "{{ 7 * 7 }}" in page


def put(folder: Path, names: list[bytes], content: bytes) -> None:
    """Files whose names need not be text."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        with open(os.fsencode(folder) + b"/" + name, "wb") as stream:
            stream.write(content)


ODD_FILES = [b"M\xfcller", b"line\nbreak", b"back\\slash", b"-rf", b"%s%n", b"$(touch x)", "ä ö".encode(), b"x" * 240]


def test_files_with_any_name_are_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """OpenCV and SimpleITK end the process at a path that is not UTF-8, as old archives of hospitals hold it."""
    image, mask = picture(channels=1)
    data = cv2.imencode(".png", image[0])[1].tobytes()
    put(tmp_path / "in", [name + b".png" for name in ODD_FILES], data)
    write_image(tmp_path / "volume.nii.gz", image)
    put(tmp_path / "in", [b"M\xfcller.nii.gz"], (tmp_path / "volume.nii.gz").read_bytes())
    for overwrite in (True, False):
        report = predict_files(Predictor([trained()]), tmp_path / "in", tmp_path / "out", overlays=True, overwrite=overwrite)
        assert len(report.record.cases) == len(ODD_FILES) and all(is_path_below(case.case) for case in report.record.cases)
        (problem,) = report.failed.values()
        assert "not valid UTF-8" in problem and "ller" not in problem
    assert len(report.record.skipped) == len(ODD_FILES)
    for case in report.record.cases:
        assert (read_image(tmp_path / "out" / case.output).array[0] == mask).all(), case.case


def test_files_with_any_name_are_converted(tmp_path: Path) -> None:
    for index in range(len(ODD_FILES)):
        image, mask = generated.draw("lesion", index)
        for folder, array in (("images", image), ("masks", mask)):
            put(tmp_path / folder, [ODD_FILES[index] + b".png"], cv2.imencode(".png", array)[1].tobytes())
    report = api.convert_folders(tmp_path / "images", tmp_path / "masks", "Odd", root=tmp_path / "root")
    assert report.cases == len(ODD_FILES)
    raw = RawDataset.open(Workspace.at(tmp_path / "root").dataset(501))
    assert all(case.name.isascii() and is_file_name(case.name) for case in raw.cases)
    images = raw.cases[0].images[0].parent
    shutil.copyfile(raw.cases[0].images[0], images / "line\nbreak_0000.png")
    with pytest.raises(AutosegError, match=r"line\\nbreak_0000.png.* no name of a case may hold"):
        RawDataset.open(Workspace.at(tmp_path / "root").dataset(501))
