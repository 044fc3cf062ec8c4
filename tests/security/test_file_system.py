"""The file system refuses: one message, exit code 2, nothing half-written, and nothing lost."""

from __future__ import annotations

import errno
import importlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autoseg import api
from autoseg.api import training
from autoseg.cli import convert, entry, evaluate, export, fingerprint, predict
from autoseg.io import write_image, write_label
from autoseg.prediction.files import predict_files
from autoseg.prediction.predictor import Predictor
from autoseg.runner import process
from autoseg.schema.audit import Decisions
from autoseg.schema.plan import Fold, Splits
from autoseg.support import files, os_errors
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Workspace
from autoseg.training import checkpoint
from autoseg.training.run_lock import run_lock
from tests import generated
from tests.prediction.conftest import bright_is_registered
from tests.prediction.stand_in import picture, record_of, trained, write_fold
from tests.test_architecture import COMMANDS
from tests.training import tiny

__all__ = ["bright_is_registered"]
NEEDS_PATCHED_CALLS = pytest.mark.skipif(sys.version_info < (3, 11), reason="pathlib keeps its own references before")
LONG = "n" * 300


def refuse_writing(monkeypatch: pytest.MonkeyPatch, folder: Path, number: int) -> None:
    """Let the calls that write below `folder` fail, as those of a read-only or foreign disk do."""

    def guarded(call: Callable[..., Any], writes: Callable[..., bool]) -> Callable[..., Any]:
        def guard(path: Any, *arguments: Any, **options: Any) -> Any:
            named = Path(os.fsdecode(path)) if not isinstance(path, int) else Path()
            if (folder == named or folder in named.parents) and writes(named, *arguments, **options):
                raise OSError(number, os.strerror(number), str(path))
            return call(path, *arguments, **options)

        return guard

    def opens_to_write(path: Path, mode: Any = "r", *_: Any, **__: Any) -> bool:
        return bool(set(mode) & set("wax+")) if isinstance(mode, str) else bool(mode & (os.O_WRONLY | os.O_RDWR))

    monkeypatch.setattr(os, "mkdir", guarded(os.mkdir, lambda path, *_, **__: not path.exists()))
    for name in ("rename", "replace", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name), lambda path, *_, **__: path.exists()))
    monkeypatch.setattr(os, "open", guarded(os.open, opens_to_write))
    monkeypatch.setattr(io, "open", guarded(io.open, opens_to_write))
    monkeypatch.setattr("builtins.open", io.open)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(3):
        image, mask = picture((40, 60), (10, 12, 30, 40 + number))
        write_image(tmp_path / "photos" / f"case{number}.png", image)
        write_label(tmp_path / "masks" / f"case{number}.png", mask)
    return tmp_path / "photos"


@pytest.fixture
def root(tmp_path: Path, pictures: Path, bright_is_registered: None) -> Path:
    """A root with a raw dataset, its fingerprint and a fold of a network that needs no training."""
    root = tmp_path / "root"
    api.convert_folders(pictures, tmp_path / "masks", "Tiny", root=root)
    api.fingerprint("Tiny", root=root)
    write_fold(root / "results" / "Dataset501_Tiny" / "bright" / "fold_0")
    return root


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "entry"])
def test_every_command_says_it_in_one_message(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever of a command raises it: here the first thing that each of them does."""

    def refuse(*arguments: object, **options: object) -> object:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/data/plan.json")

    monkeypatch.setattr(entry, "parser", refuse)
    assert importlib.import_module(f"autoseg.cli.{command}").main([]) == 2
    assert capsys.readouterr().err.startswith("error: cannot write /data/plan.json: the file system is read-only\n  -> ")


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "the disk reports an error"),
        (errno.ESTALE, "the network drive has lost the file"),
        (errno.EMFILE, "too many open files"),
        (errno.EFBIG, "the file would be larger"),
    ],
)
def test_every_reason_has_its_words(number: int, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    with pytest.raises(AutosegError, match=f"cannot write {path}: {reason}.*\n  -> ."), files.atomic_write(path):
        raise OSError(number, os.strerror(number))
    assert not list(tmp_path.iterdir())


def test_used_up_inodes_are_not_called_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((*disk[:4], 1000, 50, 0, 0, *disk[8:10])))
    with pytest.raises(AutosegError, match=r"a\.json: .*no more files: its inodes"), files.atomic_write(tmp_path / "a.json"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_that_cannot_be_read_is_not_said_to_be_written(tmp_path: Path) -> None:
    writing = files.atomic_directory(tmp_path / "arrays", "index.json", Decisions)
    with pytest.raises(AutosegError, match="cannot read or write .*photo.png"), writing:
        (tmp_path / "raw" / "photo.png").read_bytes()


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError(errno.ECONNREFUSED, "no"), OSError("of a decoder"), ValueError("a bug")]
)
def test_other_errors_keep_their_traceback(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(type(error)), files.atomic_write(tmp_path / "a"):
        raise error

    def fail(*arguments: object, **options: object) -> object:
        raise error

    monkeypatch.setattr(entry, "parser", fail)
    with pytest.raises(type(error)):
        evaluate.main([])


@NEEDS_PATCHED_CALLS
@pytest.mark.parametrize(
    ("number", "reason"), [(errno.EROFS, "the file system is read-only"), (errno.EACCES, "permission denied")]
)
def test_nothing_can_be_written_under_the_root(
    number: int, reason: str, root: Path, tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    predicted, where = tmp_path / "predicted", ["--root", str(root)]
    arguments = ["-i", str(pictures), "-d", "501", "-m", "bright", *where]
    refuse_writing(monkeypatch, root, number)
    folders = ["folders", "--images", str(pictures), "--masks", str(tmp_path / "masks"), "--name"]
    assert convert.main([*where, *folders, "Other"]) == 2
    assert predict.main([*arguments, "-o", str(root / "predicted")]) == 2
    assert export.main(["501", "bright", "-o", str(root / "bundle.zip"), *where]) == 2
    messages = capsys.readouterr().err
    for name in ("raw/Dataset502_Other", "predicted", "bundle.zip"):
        assert f"error: cannot write {root / name}" in messages, messages
    assert messages.count(f": {reason}") == 3 and "Traceback" not in messages
    with pytest.raises(AutosegError, match=f"cannot write .*run.lock: {reason}"), run_lock(root / "results" / "fold"):
        pass
    with pytest.raises(AutosegError, match=f"cannot write .*a.log: {reason}"):
        process.start([sys.executable], root / "logs" / "a.log", {})
    # What is finished can still be read, and used from elsewhere.
    assert convert.main([*where, *folders, "Tiny"]) == 0
    assert fingerprint.main(["Tiny", *where]) == 0
    assert predict.main([*arguments, "-o", str(predicted)]) == 0
    assert evaluate.main([str(predicted), str(root / "raw" / "Dataset501_Tiny" / "labelsTr"), *where]) == 0
    assert export.main(["501", "bright", "-o", str(tmp_path / "bundle.zip"), *where]) == 0


@NEEDS_PATCHED_CALLS
def test_results_that_cannot_be_written_are_shown(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = tmp_path / "masks"
    shutil.rmtree(root / "preprocessed")
    for folder in (root / "preprocessed", tmp_path / "scores"):
        refuse_writing(monkeypatch, folder, errno.EROFS)
    for main, arguments, shown in [
        (evaluate.main, [str(masks), str(masks), "-o", str(tmp_path / "scores")], "dice"),
        (fingerprint.main, ["Tiny", "--root", str(root)], "Dataset501_Tiny"),
    ]:
        assert main(arguments) == 2
        output = capsys.readouterr()
        assert shown in output.out and "cannot write" in output.err


@NEEDS_PATCHED_CALLS
def test_a_finished_training_is_read_without_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.register()
    before = tiny.train(tmp_path)
    refuse_writing(monkeypatch, tmp_path, errno.EROFS)
    assert tiny.train(tmp_path) == before
    with pytest.raises(AutosegError, match="cannot write .*run.lock: the file system is read-only"):
        tiny.train(tmp_path, restart=True)


def test_a_root_that_was_moved_away_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.register()
    monkeypatch.setattr(tiny.Step, "__call__", tiny.Step.__call__)
    tiny.at_step(4, lambda: (tmp_path / "root" / "results").rename(tmp_path / "moved"))
    with pytest.raises(AutosegError, match="cannot write .*fold_0.*does not exist any more"):
        tiny.train(tmp_path / "root")
    assert not (tmp_path / "root" / "results").exists()


def test_a_name_of_300_letters_is_said_to_be_too_long(root: Path, tmp_path: Path, pictures: Path, capsys: Any) -> None:
    where, masks = ["--root", str(root)], str(tmp_path / "masks")
    folders = ["folders", "--images", str(pictures), "--masks", masks, "--name"]
    assert convert.main([*where, *folders, LONG]) == 2
    assert predict.main(["-i", str(pictures), "-d", "501", "-m", "bright", "-o", str(tmp_path / LONG), *where]) == 2
    assert evaluate.main([masks, masks, "-o", str(tmp_path / LONG)]) == 2
    messages = capsys.readouterr().err
    assert "cannot name a dataset" in messages and messages.count(": the name is too long") == 2
    assert fingerprint.main(["501", "--root", str(tmp_path / LONG)]) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_under_the_redirected_output() -> None:
    code = "from autoseg.cli.convert import main; raise SystemExit(main())"
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [sys.executable, "-c", code, "--list"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (run.returncode, run.stderr.splitlines()[0]) == (2, "error: cannot write the output: the disk is full")


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """`ulimit -f`, in a process of its own."""
    code = (
        "import resource, sys; from pathlib import Path; from autoseg.cli import entry\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from autoseg.support.files import write_text\n"
        f"main = entry.command(lambda arguments: write_text(Path({str(tmp_path / 'a.txt')!r}), 'x' * 5000) or 0)\n"
        "raise SystemExit(main())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 2 and f"cannot write {tmp_path / 'a.txt'}: the file would be larger" in run.stderr
    assert not list(tmp_path.iterdir())


class Killed(BaseException):
    """What happens after it does not happen."""


@pytest.fixture
def folder_with_old_content(tmp_path: Path) -> Path:
    files.write_artefact(tmp_path / "arrays" / "index.json", Decisions("old"))
    (tmp_path / "arrays" / "old").touch()
    return tmp_path / "arrays"


def rewrite(folder: Path) -> None:
    with files.atomic_directory(folder, "index.json", Decisions) as temporary:
        files.write_artefact(temporary / "index.json", Decisions("new"))
        (temporary / "new").touch()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_old_folder_is_deleted_after_the_new_one_is_in_place(
    folder_with_old_content: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted: list[list[str]] = []
    remove = shutil.rmtree

    def watch(path: Path, **options: Any) -> None:
        deleted.append(names(folder_with_old_content))
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", watch)
    rewrite(folder_with_old_content)
    assert deleted[0] == ["index.json", "new"] and names(folder_with_old_content.parent) == ["arrays"]


@pytest.mark.parametrize("moves", [0, 1])
def test_a_replacement_killed_between_two_moves_loses_nothing(
    moves: int, folder_with_old_content: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_with_old_content
    replace, count = Path.replace, iter(range(9))

    def kill(self: Path, target: Path) -> Path:
        if self.is_dir() and next(count) >= moves:
            raise Killed
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", kill)
        with pytest.raises(Killed):
            rewrite(folder)
    files.restore_directories(folder.parent)
    assert names(folder) == ["index.json", "old"] and names(folder.parent) == ["arrays"]
    rewrite(folder)
    assert names(folder) == ["index.json", "new"] and names(folder.parent) == ["arrays"]


def test_a_conversion_that_is_killed_while_it_replaces_leaves_a_whole_dataset(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = root / "raw" / "Dataset501_Tiny"
    before = names(raw / "labelsTr")
    folders = generated.write_folders(tmp_path / "other", "lesion", 4)

    def kill(*arguments: object, **options: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", kill)
        with pytest.raises(Killed):
            api.convert_folders(*folders, "Tiny", 501, overwrite=True, root=root)
    assert names(raw / "labelsTr") == names(folders[1]) != before
    api.convert_folders(*folders, "Tiny", 501, overwrite=True, root=root)
    assert names(root / "raw") == ["Dataset501_Tiny"]


def test_files_of_killed_runs_are_removed_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.register()
    folder = tmp_path / "results" / "Dataset701_Discs" / tiny.NAME / "fold_0"
    leftovers = [".last.pt.0123abcd.pt", ".best.pt.89abcdef.pt", ".run.json.00000000.json", ".progress.png.01234567.png"]
    others = [".notes.0123abcd.txt", ".last.pt.backup", "my.pt"]
    folder.mkdir(parents=True)
    for name in (*leftovers, *others):
        (folder / name).touch()
    tiny.train(tmp_path)
    assert not set(leftovers) & set(names(folder)) and set(others) <= set(names(folder))


def test_arrays_of_a_killed_planning_are_removed_once_they_are_old(tmp_path: Path, folder_with_old_content: Path) -> None:
    old, new = (tmp_path / f".arrays.{number:08x}" for number in (1, 2))
    for folder in (old, new):
        folder.mkdir()
        (folder / "images.npy").touch()
    for path in (old / "images.npy", old):
        os.utime(path, (0, 0))
    rewrite(folder_with_old_content)
    assert names(tmp_path) == [new.name, "arrays"], "the newer one may be of a process that runs"


@pytest.fixture
def places(root: Path, tmp_path: Path) -> Iterator[list[Path]]:
    """The folders of a raw dataset that must stay as they are, and ways to name them."""
    raw = root / "raw" / "Dataset501_Tiny"
    (tmp_path / "link").symlink_to(raw / "labelsTr")
    before = {path: path.read_bytes() for path in raw.rglob("*") if path.is_file()}
    parts = [
        raw / "imagesTr",
        raw / "labelsTr",
        raw / "labelsTs",
        raw / "imagesTs" / "sub",
        raw / "imagesTr" / ".." / "labelsTr",
    ]
    yield [*parts, tmp_path / "link"]
    assert {path: path.read_bytes() for path in raw.rglob("*") if path.is_file()} == before


def test_no_output_goes_among_images_and_masks_of_a_dataset(
    places: list[Path], root: Path, tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where, masks = ["--root", str(root)], str(tmp_path / "masks")
    for place in places:
        assert predict.main(["-i", str(pictures), "-d", "501", "-m", "bright", "-o", str(place), *where]) == 2
        assert evaluate.main([masks, masks, "-o", str(place)]) == 2
        assert export.main(["501", "bright", "-o", str(place / "bundle.zip"), *where]) == 2
        with pytest.raises(AutosegError, match="belongs to the images and masks"):
            api.audit("Tiny", output=place, root=root)
        with pytest.raises(AutosegError, match="belongs to the images and masks"):
            api.compare("Tiny", output=place, root=root)
    assert capsys.readouterr().err.count("belongs to the images and masks") == 3 * len(places)


def test_masks_of_others_are_not_overwritten(tmp_path: Path, pictures: Path) -> None:
    """A folder of references, wherever it lies."""
    predictor, masks = Predictor([trained()]), tmp_path / "masks"
    before = [path.read_bytes() for path in sorted(masks.iterdir())]
    with pytest.raises(
        AutosegError, match="holds files that autoseg_predict did not write, and case0.png would be overwritten"
    ):
        predict_files(predictor, pictures, masks)
    assert [path.read_bytes() for path in sorted(masks.iterdir())] == before
    predict_files(predictor, pictures, tmp_path / "own")
    assert len(predict_files(predictor, pictures, tmp_path / "own").cases) == 3


def test_messages_name_the_file_and_not_its_temporary_one(tmp_path: Path) -> None:
    error = OSError(errno.EACCES, "Permission denied", str(tmp_path / f".{checkpoint.LAST}.01234567.pt"))
    described = os_errors.file_system_error(error, tmp_path / checkpoint.LAST)
    assert described is not None and described.problem == f"cannot write {tmp_path / checkpoint.LAST}: permission denied"


@pytest.mark.parametrize(
    ("number", "name", "mode", "verb"),
    [
        (errno.EACCES, "photo.png", os.R_OK, "write"),
        (errno.EACCES, "photo.png", 0, "read"),
        (errno.EACCES, "new.png", 0, "write"),
        (errno.ENOENT, "missing.png", 0, "read"),
        (errno.ENOENT, "moved/plan.json", 0, "read or write"),
        (errno.EIO, "photo.png", 0, "read or write"),
    ],
)
def test_an_error_without_a_context_says_what_failed(
    number: int, name: str, mode: int, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photo.png").touch()
    path = tmp_path / name
    monkeypatch.setattr(os, "access", lambda asked, wanted: mode == os.R_OK if asked == path else True)
    described = os_errors.file_system_error(OSError(number, os.strerror(number), str(path)))
    assert described is not None and described.problem.startswith(f"cannot {verb} {path}: ")


@NEEDS_PATCHED_CALLS
def test_scores_of_a_finished_run_are_read_where_they_cannot_be_written_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = Workspace.at(root).dataset(501)
    folder, record = dataset.fold("bright", 0), record_of()
    masks, splits = tmp_path / "masks", Splits(folds=(Fold(train=(), validation=("case0",)),), reason="by hand")
    expected = api.evaluate(masks, masks, folder / "validation")

    def score(*arguments: object) -> None:
        files.write_text(folder / "appearance.json", "{}")

    monkeypatch.setattr(training, "_predict_and_score", score)
    refuse_writing(monkeypatch, root, errno.EROFS)
    assert training._score_fold(dataset, record, splits, folder, "cpu") == expected
    assert "appearance.json: the file system is read-only; the scores are those" in caplog.text
    with monkeypatch.context() as patch, pytest.raises(AutosegError, match="the disk is full"):
        refuse_writing(patch, root, errno.ENOSPC)
        training._score_fold(dataset, record, splits, folder, "cpu")
    # Weights that are newer than the scores have none.
    os.utime(folder / "validation" / "scores.json", (0, 0))
    with pytest.raises(AutosegError, match="read-only"):
        training._score_fold(dataset, record, splits, folder, "cpu")
