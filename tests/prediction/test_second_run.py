"""A second prediction into the same folder keeps the records of the first one, or is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.io import write_image
from autoseg.prediction.files import PredictionReport, predict_files
from autoseg.prediction.predictor import Predictor
from autoseg.prediction.progress_log import UNFINISHED
from autoseg.schema.prediction import PredictionRecord
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact
from tests.prediction.stand_in import picture, trained


def images(folder: Path, *names: str) -> Path:
    for name in names:
        write_image(folder / f"{name}.png", picture((40, 60), (10, 12, 30, 40))[0])
    return folder


def names_in(folder: Path) -> list[str]:
    return [case.case for case in read_artefact(folder / "prediction.json", PredictionRecord).cases]


def run(source: Path, target: Path, fold: int = 0, **options: object) -> PredictionReport:
    return predict_files(Predictor([trained(fold=fold, batch=1)]), source, target, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("overwrite", [True, False])
def test_records_are_merged_by_case(tmp_path, overwrite):
    out = tmp_path / "out"
    run(images(tmp_path / "monday", "a", "b"), out)
    (tmp_path / "monday" / "b.png").unlink()
    report = run(images(tmp_path / "tuesday", "b", "c"), out, overwrite=overwrite)
    assert names_in(out) == ["a", "b", "c"]
    assert report.cases == (("b", "c") if overwrite else ("c",)) and "a" in report.record.skipped
    assert report.record.cases[0].sha256


def test_a_case_whose_mask_is_gone_loses_its_record(tmp_path):
    out = tmp_path / "out"
    run(images(tmp_path / "monday", "a", "b"), out)
    (out / "a.png").unlink()
    run(images(tmp_path / "tuesday", "c"), out)
    assert names_in(out) == ["b", "c"]


def test_failures_of_the_first_run_stay(tmp_path):
    out = tmp_path / "out"
    source = images(tmp_path / "monday", "a")
    (source / "torn.png").write_bytes(b"no picture")
    run(source, out)
    run(images(tmp_path / "tuesday", "b"), out)
    record = read_artefact(out / "prediction.json", PredictionRecord)
    assert list(record.failed) == ["torn"] and names_in(out) == ["a", "b"]
    report = run(images(tmp_path / "wednesday", "torn"), out)
    assert not report.failed and names_in(out) == ["a", "b", "torn"]


def test_masks_of_other_networks_are_refused_before_anything_is_written(tmp_path):
    out = tmp_path / "out"
    run(images(tmp_path / "monday", "a", "b"), out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(AutosegError, match=r"(?s)2 masks of other networks.*\ba\b.*another output folder"):
        run(images(tmp_path / "tuesday", "c"), out, fold=1)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_other_networks_may_predict_the_same_images_again(tmp_path):
    out = tmp_path / "out"
    source = images(tmp_path / "monday", "a", "b")
    run(source, out)
    run(source, out, fold=1)
    record = read_artefact(out / "prediction.json", PredictionRecord)
    assert record.folds == (1,) and not record.skipped


def test_cases_of_an_interrupted_run_are_kept_too(tmp_path):
    out = tmp_path / "out"
    source = images(tmp_path / "monday", "a", "b")
    (source / "torn.png").write_bytes(b"no picture")
    with pytest.raises(AutosegError, match="torn"):
        run(source, out, strict=True)
    assert (out / UNFINISHED).exists() and not (out / "prediction.json").exists()
    run(images(tmp_path / "tuesday", "c"), out)
    assert names_in(out)[-1] == "c" and set(names_in(out)) >= {"a", "c"} and not (out / UNFINISHED).exists()
