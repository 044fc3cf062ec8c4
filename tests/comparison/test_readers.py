from __future__ import annotations

import pytest

from autoseg import api
from autoseg.cli import compare
from autoseg.schema.second_reader import ReaderStudy
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact


def test_hybrid_equals_the_reader_it_takes(made, tmp_path):
    root, name = made.dataset.root, made.dataset.name
    folders = made.dataset.results.iterdir()
    first, second = sorted(path.name for path in folders if (path / "fold_0").is_dir())[:2]
    never = api.study_readers(name, first=first, second=second, trust=0.0, output=tmp_path, root=root)
    always = api.study_readers(name, first=first, second=second, trust=1.01, output=tmp_path, root=root)
    assert not never.asked and len(always.asked) == 12

    def dice(study: ReaderStudy, reader: str) -> float:
        return next(one.dice for one in study.scores if one.reader == reader and one.stratum == "all")

    assert dice(never, "hybrid: replace") == dice(never, first)
    assert dice(always, "hybrid: replace") == dice(always, second)
    assert all(one.best <= one.area for one in always.areas)
    with pytest.raises(AutosegError, match="no reader"):
        api.study_readers(name, first="nobody", output=tmp_path, root=root)


def test_the_command_writes_what_it_shows(made, tmp_path, capsys):
    asked = [made.dataset.name, "--risk-coverage", "--root", str(made.dataset.root), "-o", str(tmp_path)]
    assert compare.main(asked) == 0
    shown = capsys.readouterr().out
    study = read_artefact(tmp_path / "risk_coverage.json", ReaderStudy)
    assert "AURC" in shown and study.first in shown and {one.stratum for one in study.scores} == {"all", "hard 5%", "easy 5%"}
