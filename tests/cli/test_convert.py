"""autoseg_convert on the command line."""

import pytest

from autoseg.cli.convert import main
from dataset_conversion.registry import CONVERTERS, PUBLISHED
from tests.dataset_conversion import layouts, official


def test_list_describes_every_dataset(capsys):
    assert main(["--list"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(name in text for name in (*CONVERTERS, "folders"))
    for heading in ("modality", "classes", "images", "licence", "paper"):
        assert heading in text
    assert all(row.licence and row.paper and row.size and row.modality for row in PUBLISHED)


def test_help_shows_citation_and_layout(capsys):
    for name in CONVERTERS:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        assert CONVERTERS[name].about().splitlines()[0] in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["busi", "--help"])
    assert "Dataset_BUSI_with_GT/benign/benign (1).png      benign (1)_mask.png" in capsys.readouterr().out


def test_options_reach_the_converter(tmp_path, capsys):
    official.bus_ucm(tmp_path / "source")
    root = str(tmp_path / "root")
    assert main(["bus_ucm", str(tmp_path / "source"), "--lesion", "--id", "7", "--dry-run", "--root", root]) == 0
    assert "dry run" in capsys.readouterr().out and not (tmp_path / "root").exists()
    assert main(["--root", root, "bus_ucm", str(tmp_path / "source"), "--lesion", "--without-normal"]) == 0
    out = capsys.readouterr().out
    assert "Dataset501_BUSUCLM: 3 cases of 3 patients" in out and "1 lesion (in 3, " in out


def test_layouts_require_a_name_and_accept_labels(tmp_path, capsys):
    layouts.mask_per_class(tmp_path / "source")
    with pytest.raises(SystemExit):
        main(["mask_per_class", str(tmp_path / "source")])
    arguments = ["mask_per_class", str(tmp_path / "source"), "--name", "Eyes", "--labels", "disc,cup"]
    assert main([*arguments, "--root", str(tmp_path)]) == 0
    assert "0 background, 1 disc (in 2" in capsys.readouterr().out


def test_user_errors_end_with_code_two_and_a_message(tmp_path, capsys):
    assert main(["etis", str(tmp_path / "missing"), "--root", str(tmp_path)]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["camus", str(tmp_path), "--root", str(tmp_path / "root")]) == 2
    assert "is empty" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([])
