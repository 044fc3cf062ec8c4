"""What was derived from files is not used after the files changed: planned, trained and scored data, one change each."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from autoseg import api
from autoseg.io import write_image, write_label
from autoseg.io.raw_dataset import write_description
from autoseg.schema.dataset import DatasetSpec
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Dataset, Workspace

MODEL = "unet"
CASES = 10
SETTINGS = {
    "training.epochs": 1,
    "training.folds": 2,
    f"models.{MODEL}.variant": "16",
    f"models.{MODEL}.input_size": "32x32",
    f"models.{MODEL}.batch_size": 2,
}


def case(index: int) -> tuple[np.ndarray, np.ndarray]:
    """A random gray image (1, 48, 48) and a mask (48, 48) of two discs."""
    rng = np.random.default_rng(index)
    mask = np.zeros((48, 48), np.uint8)
    for value, column in ((1, 14), (2, 34)):
        cv2.circle(mask, (column + int(rng.integers(-4, 5)), int(rng.integers(14, 34))), int(rng.integers(5, 9)), value, -1)
    image = np.array([40, 130, 220], np.float32)[mask] + rng.normal(0, 12, mask.shape)
    return image.clip(0, 255).astype(np.uint8)[None], mask


def write_raw(dataset: Dataset, ending: str = ".png") -> None:
    for index in range(CASES):
        image, mask = case(index)
        write_image(dataset.raw / "imagesTr" / f"c{index}_0000{ending}", image)
        write_label(dataset.raw / "labelsTr" / f"c{index}{ending}", mask)
    spec = DatasetSpec(
        channel_names={"0": "gray"}, labels={"background": 0, "disc": 1, "ring": 2}, numTraining=CASES, file_ending=ending
    )
    write_description(dataset.description, spec)


def plan(root: Path, **options: object) -> None:
    api.plan_and_preprocess(501, protocol="quick", models=MODEL, settings=SETTINGS, root=root, **options)


def test_the_masks_that_dataset_json_lists_are_trained_and_scored(tmp_path: Path) -> None:
    """nnU-Net's entry "dataset": here it names other masks than labelsTr holds, and then labelsTr is gone."""
    dataset = Workspace.at(tmp_path).new_dataset(501, "Listed")
    write_raw(dataset)
    entries = {}
    for index in range(CASES):
        name = f"c{index}"
        shutil.copy(dataset.raw / "labelsTr" / f"{name}.png", dataset.raw / f"second_{name}.png")
        write_label(dataset.raw / "labelsTr" / f"{name}.png", np.zeros((48, 48), np.uint8))
        entries[name] = {"images": [f"imagesTr/{name}_0000.png"], "label": f"second_{name}.png"}
    content = json.loads(dataset.description.read_text())
    dataset.description.write_text(json.dumps({**content, "dataset": entries}))
    plan(tmp_path)
    (trained,) = api.train(501, MODEL, 0, root=tmp_path)
    listed = {score.case: sum(one.tp + one.fn for one in score.classes.values()) for score in trained.scores.cases}
    assert listed == {name: int((case(int(name[1:]))[1] > 0).sum()) for name in listed}, "scored against labelsTr"
    shutil.rmtree(dataset.raw / "labelsTr")
    (again,) = api.train(501, MODEL, 1, root=tmp_path)
    assert again.scores.cases


@pytest.fixture(scope="module", params=[".png", ".tif"])
def trained_root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with a trained and scored fold of each of two models."""
    root = tmp_path_factory.mktemp("trained")
    write_raw(Workspace.at(root).new_dataset(501, "Discs"), request.param)
    settings = {**SETTINGS, "models.nnunet.input_size": "32x32", "models.nnunet.batch_size": 2}
    api.plan_and_preprocess(501, protocol="quick", models=[MODEL, "nnunet"], settings=settings, root=root)
    for model in (MODEL, "nnunet"):
        api.train(501, model, 0, root=root)
    return root


@pytest.fixture
def root(trained_root: Path, tmp_path: Path) -> Path:
    """A copy with other times, as after a copy between file systems: nothing has changed."""
    shutil.copytree(trained_root, tmp_path / "root", copy_function=shutil.copy)
    return tmp_path / "root"


def file_of(root: Path, folder: str, name: str) -> Path:
    (path,) = (root / "raw" / "Dataset501_Discs" / folder).glob(f"{name}.*")
    return path


def change_mask(root: Path) -> str:
    path = file_of(root, "labelsTr", "c3")
    write_label(path, case(7)[1])
    return f"c3: the mask labelsTr/{path.name} has changed"


def change_mask_keeping_its_times(root: Path) -> str:
    path = file_of(root, "labelsTr", "c3")
    before = path.stat()
    message = change_mask(root)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return message


def change_image(root: Path) -> str:
    path = file_of(root, "imagesTr", "c2_0000")
    write_image(path, case(8)[0])
    return f"c2: the image imagesTr/{path.name} has changed"


def delete_case(root: Path) -> str:
    file_of(root, "labelsTr", "c4").unlink()
    file_of(root, "imagesTr", "c4_0000").unlink()
    return "c4: its image imagesTr/c4_0000"


def delete_mask(root: Path) -> str:
    file_of(root, "labelsTr", "c5").unlink()
    return "c5: its mask labelsTr/c5"


def add_case(root: Path) -> str:
    for folder, name in (("imagesTr", "c1_0000"), ("labelsTr", "c1")):
        path = file_of(root, folder, name)
        shutil.copy(path, path.with_name(path.name.replace("c1", "new")))
    return "new: a new case"


def swap_masks(root: Path) -> str:
    one, other = (file_of(root, "labelsTr", name) for name in ("c6", "c7"))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    return "c7: the mask labelsTr/c7"


def rename_label(root: Path) -> str:
    path = root / "raw" / "Dataset501_Discs" / "dataset.json"
    path.write_text(path.read_text().replace('"ring"', '"core"'))
    return "dataset.json: labels"


CHANGES = [
    change_mask, change_mask_keeping_its_times, change_image, delete_case, delete_mask, add_case, swap_masks, rename_label,
]  # fmt: skip
USES: dict[str, Callable[[Path], object]] = {
    "train": lambda root: api.train(501, MODEL, 0, root=root),
    "run": lambda root: api.run(501, root=root),
    "compare": lambda root: api.compare(501, root=root, report=False),
    "explain": lambda root: api.explain(501, MODEL, 0, root=root),
    "find_best": lambda root: api.find_best(501, root=root),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_files_are_named_before_any_work(root: Path, change: Callable[[Path], str]) -> None:
    message = change(root)
    before = {path: path.stat().st_mtime_ns for path in (root / "results").rglob("*")}
    for name, use in USES.items():
        with pytest.raises(AutosegError) as caught:
            use(root)
        text = str(caught.value)
        assert "Dataset501_Discs has changed since" in text and message in text, name
        assert "autoseg_plan_and_preprocess 501 --protocol quick --models unet,nnunet --set training.epochs=1" in text, name
        assert text.count("\n  - ") == (2 if change is swap_masks else 1), name
    after = {path: path.stat().st_mtime_ns for path in (root / "results").rglob("*")}
    assert {path for path in after if path.suffix not in (".lock", "")} == {path for path in before if path.suffix != ""}
    assert all(after[path] == before[path] for path in before if path.is_file())


def test_other_times_alone_change_nothing(root: Path) -> None:
    for path in (root / "raw").rglob("*.*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert api.compare(501, root=root, report=False).datasets[0].cases
    (again,) = api.train(501, MODEL, 0, root=root)
    assert again.record.status == "finished"


def test_a_plan_is_made_again_when_asked(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    message = delete_case(root)
    (trained,) = api.train(501, MODEL, 0, replan=True, restart=True, root=root)
    assert message in caplog.text and "Dataset501_Discs has changed: planning it for quick now" in caplog.text
    assert trained.record.epochs_planned == 1 and len(trained.scores.cases) in (4, 5)
    # The other model's fold is of the older data: it is not taken for done, nor compared.
    with pytest.raises(AutosegError, match=r"has changed since nnunet, fold_0 was trained"):
        api.compare(501, root=root, report=False)


def test_a_run_of_older_data_is_not_done(root: Path) -> None:
    from autoseg.runner.jobs import is_done
    from autoseg.schema.runner import Job

    assert is_done(root, Job("Dataset501_Discs", MODEL, 0))
    change_mask(root)
    api.plan_and_preprocess(501, protocol="quick", models=[MODEL], settings=SETTINGS, root=root)
    assert not is_done(root, Job("Dataset501_Discs", MODEL, 0))


Folds = list[dict[str, list[str]]]


def edit_splits(root: Path, change: Callable[[Folds], object]) -> None:
    path = Workspace.at(root).dataset(501).splits
    content = json.loads(path.read_text())
    change(content["folds"])
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folds: folds[0]["train"].append(folds[0]["validation"][0]), "is in train and in validation"),
        (lambda folds: folds[0]["train"].append(folds[0]["train"][0]), "fold 0, train: c.* is listed twice"),
        (lambda folds: folds[0]["validation"].append(folds[0]["validation"][0]), "fold 0, validation: c.* is listed twice"),
        (lambda folds: folds[0]["validation"].clear(), "fold 0, validation: no cases"),
        (lambda folds: folds[0]["train"].clear(), "fold 0, train: no cases"),
        (lambda folds: folds[1]["train"].append("nobody"), "fold 1, train: no case 'nobody'"),
        (lambda folds: folds.clear(), "there are no folds"),
    ],
)
def test_splits_are_checked_before_training(root: Path, change: Callable[[Folds], object], says: str) -> None:
    edit_splits(root, change)
    for use in (USES["train"], USES["run"]):
        with pytest.raises(AutosegError, match=f"these splits would give meaningless scores(.|\n)*{says}"):
            use(root)


def test_damaged_files_between_the_stages_are_made_again(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = Workspace.at(root).dataset(501)
    data.sources.write_text("{}")
    data.fingerprint.write_bytes(b"")
    (data.array_folder("resize_32x32") / "images.npy").write_bytes(b"")
    (trained,) = api.train(501, MODEL, 1, root=root)
    assert trained.scores.cases
    assert "fingerprint.json" in caplog.text and "images.npy" in caplog.text


def test_nothing_is_read_where_sizes_and_times_are_as_recorded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from autoseg.fingerprint import sources
    from autoseg.fingerprint.sources import check_sources
    from autoseg.schema.plan import Plan
    from autoseg.support.files import read_artefact

    read: list[Path] = []
    hash_file = sources.fast_hash_file
    monkeypatch.setattr(sources, "fast_hash_file", lambda path: read.append(path) or hash_file(path))
    monkeypatch.setattr(sources, "_TICK", 0)
    data = Workspace.at(root).dataset(501)
    content_hash = read_artefact(data.plan, Plan).content_hash
    check_sources(data, content_hash)
    assert len(read) == 2 * CASES, "the copy has other times"
    read.clear()
    check_sources(data, content_hash)
    assert read == []
    change_mask(root)
    with pytest.raises(AutosegError, match="c3"):
        check_sources(data, content_hash)
    assert read == [file_of(root, "labelsTr", "c3")]


PLAN, RUN = "preprocessed/Dataset501_Discs/plan.json", "results/Dataset501_Discs/unet/fold_0/run.json"
EDITS: list[tuple[str, tuple[str, ...], object, str]] = [
    (PLAN, ("models", "unet", "batch_size"), 0, "models.unet.batch_size: expected a whole number from 1"),
    (PLAN, ("models", "unet", "learning_rate"), None, "models.unet.learning_rate: expected a number above 0"),
    (PLAN, ("training", "epochs"), -3, "training.epochs: expected a whole number from 1"),
    (PLAN, ("models", "unet", "preprocessing"), "nowhere", "models.unet.preprocessing: expected one of preprocessing"),
    (PLAN, ("models", "unet", "options"), {"wings": 2}, "models.unet: unet has no option 'wings'"),
    (PLAN, ("models", "unet", "variant"), "17", "models.unet: unet has no variant '17'"),
    (PLAN, ("training", "loss"), "x", "training.loss: there is no loss 'x'"),
    (RUN, ("model",), "nnunet", "is not of the run that wrote best.pt; different are:\n  - model"),
    (RUN, ("model",), "hsnet", "run.json is of hsnet"),
    (RUN, ("identity",), "0", "another run"),
    (RUN, ("status",), "done", "status: expected one of running, finished, stopped"),
]


@pytest.mark.parametrize(("name", "path", "value", "says"), EDITS)
def test_edited_files_are_told_by_the_commands(
    root: Path, name: str, path: tuple[str, ...], value: object, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from autoseg.cli import predict, train

    content = json.loads((root / name).read_text())
    holder = content
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    (root / name).write_text(json.dumps(content))
    if name == PLAN:
        assert train.main(["501", MODEL, "1", "--root", str(root), "--device", "cpu"]) == 2
    else:
        images = str(root / "raw" / "Dataset501_Discs" / "imagesTr")
        given = ["-i", images, "-o", str(root / "out"), "-d", "501", "-m", MODEL, "-f", "0", "--root", str(root)]
        assert predict.main(given) == 2
    message = capsys.readouterr().err
    assert says in message and Path(name).name in message and "Traceback" not in message


def test_an_edited_bundle_is_told(root: Path) -> None:
    """Its hashes fit: whoever edits a bundle on purpose corrects them too."""
    path = root / "bundle.zip"
    api.export(501, MODEL, path, folds=0, root=root)
    edits: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
        ("unet/fold_0/plan.json", lambda plan: plan["models"]["unet"].update(options={"wings": 2}), "no option 'wings'"),
        ("unet/fold_0/plan.json", lambda plan: plan["models"]["unet"].update(batch_size=-1), "models.unet.batch_size"),
        ("unet/fold_0/run.json", lambda run: run.update(fold=3), "run.json is not of unet, fold 0"),
        ("unet/fold_0/run.json", lambda run: run.update(model="nnunet"), "plan.json has no entry for nnunet"),
        ("dataset.json", lambda spec: spec["labels"].pop("ring"), "does not fit unet"),
        ("dataset.json", lambda spec: spec["labels"].update(ring=9), "dataset.json: labels: label values must be"),
        ("bundle.json", lambda bundle: bundle.update(members=[]), "members: expected at least one"),
        ("bundle.json", lambda bundle: bundle["members"][0].update(weights="../x"), r"members\[0\].weights: expected a path"),
        ("bundle.json", lambda bundle: bundle["members"][0].update(plan="no"), r"members\[0\].plan: expected one of the files"),
    ]
    for name, change, says in edits:
        with zipfile.ZipFile(path) as archive:
            files = {entry: archive.read(entry) for entry in archive.namelist()}
        content = json.loads(files[name])
        change(content)
        files[name] = json.dumps(content).encode()
        contents = json.loads(files["bundle.json"])
        if name != "bundle.json":
            contents["files"][name] = {"sha256": hashlib.sha256(files[name]).hexdigest(), "size": len(files[name])}
            files["bundle.json"] = json.dumps(contents).encode()
        with zipfile.ZipFile(root / "edited.zip", "w") as archive:
            for entry, data in files.items():
                archive.writestr(entry, data)
        with pytest.raises(AutosegError, match=rf"edited\.zip(.|\n)*{says}"):
            api.Predictor.load(root / "edited.zip")
