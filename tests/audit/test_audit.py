from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from autoseg import api
from autoseg.cli import audit, convert
from autoseg.schema.audit import Audit
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Workspace
from tests.audit.conftest import FAULTS, SIZE, Faulty


@pytest.fixture(scope="module")
def result(faulty: Faulty) -> Audit:
    return api.audit("Faulty", root=faulty.root)


def folder(faulty: Faulty) -> Path:
    return Workspace.at(faulty.root).dataset("Faulty").results / "audit"


def test_faulty_masks_rank_first_with_the_right_kind(result: Audit) -> None:
    assert set(list(result.cases)[: len(FAULTS)]) == set(FAULTS)
    for case, kind in FAULTS.items():
        first = next(one for one in result.findings if one.case == case)
        assert first.kind == kind, case
        assert first.label in first.reason or kind == "empty_mask"
    assert result.models == ("one", "two")
    assert list(result.to_frame()["id"]) == [one.id for one in result.findings]
    assert repr(result).startswith(f"Audit({result.dataset}: {len(result.findings)} findings in {len(result.cases)} cases")


def test_much_worse_models_are_not_used(tmp_path: Path, faulty: Faulty, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "root"
    shutil.copytree(faulty.root, root)
    dataset = Workspace.at(root).dataset("Faulty")
    shutil.copytree(dataset.results / "one", dataset.results / "poor")
    for path in (dataset.results / "poor").rglob("*.png"):
        cv2.imwrite(str(path), np.zeros(SIZE, np.uint8))
    for name in ("one", "poor"):
        held_out = dataset.results / name / "fold_0" / "validation"
        api.evaluate(held_out, dataset.raw / "labelsTr", output=held_out)
    with caplog.at_level("INFO", logger="autoseg"):
        assert api.audit("Faulty", output=tmp_path / "audit", root=root).models == ("one", "two")
    assert any("not used" in record.getMessage() and "poor" in record.getMessage() for record in caplog.records)
    assert api.audit("Faulty", models=["poor"], output=tmp_path / "asked", root=root).models == ("poor",)


def test_correct_masks_have_low_scores(result: Audit) -> None:
    worst_right = max((score for case, score in result.cases.items() if case not in FAULTS), default=0.0)
    assert worst_right < 0.1 < min(result.cases[case] for case in FAULTS)


def test_box_surrounds_the_fault(result: Audit) -> None:
    extra = next(one for one in result.findings if one.case == "c01")
    top, left, bottom, right = extra.box
    assert abs(top - 88) < 4 and abs(bottom - 112) < 4 and abs(left - 63) < 4 and abs(right - 87) < 4


def test_gallery_is_self_contained(faulty: Faulty, result: Audit) -> None:
    page = (folder(faulty) / "gallery.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert not re.search(r"https?://", page)
    assert page.count("data:image/jpeg;base64,") == len(result.findings)
    for one in result.findings:
        assert f'data-id="{one.id}"' in page and one.reason[:20] in page


def decide(path: Path, choices: dict[str, str], dataset: str = "Dataset501_Faulty") -> Path:
    path.write_text(json.dumps({"schema_version": 1, "dataset": dataset, "decisions": choices}))
    return path


def label(root: Path, name: str, case: str) -> np.ndarray:
    return cv2.imread(str(Workspace.at(root).dataset(name).raw / "labelsTr" / f"{case}.png"), cv2.IMREAD_UNCHANGED)


def test_accepted_findings_are_corrected_in_a_new_dataset(faulty: Faulty, result: Audit, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in Workspace.at(faulty.root).dataset("Faulty").raw.rglob("*.*")}
    choices = {one.id: "accept" for one in result.findings if one.case in FAULTS and one.case != "c04"}
    choices |= {one.id: "reject" for one in result.findings if one.case == "c04"}
    saved = decide(tmp_path / "decisions.json", choices)
    assert convert.main(["corrections", str(saved), "--name", "Mended", "--root", str(faulty.root)]) == 0
    for case in faulty.truth:
        mended = label(faulty.root, "Mended", case)
        if case in FAULTS and case != "c04":
            # The readers' masks are a pixel aside now and then.
            assert (mended != faulty.truth[case]).mean() < 0.02, case
        else:
            np.testing.assert_array_equal(mended, label(faulty.root, "Faulty", case))
    assert all(path.read_bytes() == content for path, content in before.items())


def test_decisions_of_another_audit_raise(faulty: Faulty, result: Audit, tmp_path: Path) -> None:
    saved = decide(tmp_path / "decisions.json", {"no such finding": "accept"})
    with pytest.raises(AutosegError, match="another audit"):
        api.correct(saved, "Other", root=faulty.root)
    with pytest.raises(AutosegError, match="decisions"):
        api.correct(decide(tmp_path / "odd.json", {result.findings[0].id: "perhaps"}), "Other", root=faulty.root)
    assert not [one for one in Workspace.at(faulty.root).datasets() if one.short_name == "Other"]


def test_masks_changed_since_the_audit_raise(faulty: Faulty, result: Audit, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(faulty.root, root)
    path = Workspace.at(root).dataset("Faulty").raw / "labelsTr" / "c00.png"
    cv2.imwrite(str(path), np.ones(SIZE, np.uint8))
    saved = decide(tmp_path / "decisions.json", {one.id: "accept" for one in result.findings if one.case == "c00"})
    with pytest.raises(AutosegError, match="c00: its mask has changed"):
        api.correct(saved, "Other", root=root)


def test_command_prints_top_findings(faulty: Faulty, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["Faulty", "--root", str(faulty.root), "-m", "one", "-o", str(tmp_path / "audit")]) == 0
    shown = capsys.readouterr().out
    assert "wrong class" in shown and "c02" in shown
    assert read_artefact(tmp_path / "audit" / "audit.json", Audit).models == ("one",)
    assert audit.main(["Faulty", "--root", str(faulty.root), "-m", "three"]) == 2
    assert "three" in capsys.readouterr().err


def test_message_without_trained_models_names_the_command(faulty: Faulty, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(faulty.root / "raw", root / "raw")
    with pytest.raises(AutosegError, match="autoseg_train 501"):
        api.audit("Faulty", root=root)


def test_duplicate_images_with_different_masks_are_reported(tmp_path: Path, faulty: Faulty) -> None:
    root = tmp_path / "root"
    shutil.copytree(faulty.root, root)
    raw = Workspace.at(root).dataset("Faulty").raw
    shutil.copyfile(raw / "imagesTr" / "c08_0000.png", raw / "imagesTr" / "c09_0000.png")
    mask = np.zeros(SIZE, np.uint8)
    cv2.circle(mask, (30, 100), 14, 2, -1)
    cv2.imwrite(str(raw / "labelsTr" / "c09.png"), mask)
    api.fingerprint("Faulty", root=root)
    twice = [one for one in api.audit("Faulty", root=root).findings if one.kind == "conflicting_duplicates"]
    assert [one.case for one in twice] == ["c09"]
    saved = decide(tmp_path / "decisions.json", {twice[0].id: "accept"})
    api.correct(saved, "Single", root=root)
    left = {path.stem for path in (Workspace.at(root).dataset("Single").raw / "labelsTr").iterdir()}
    assert left == set(faulty.truth) - {"c09"}
