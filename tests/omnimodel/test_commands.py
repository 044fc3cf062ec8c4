"""autoseg_predict -m gemini and -m image_edit against a server on this machine."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import cv2
import numpy as np
import PIL.Image as Pillow
import pytest
from PIL.PngImagePlugin import PngInfo

from autoseg.cli import evaluate, predict
from autoseg.omnimodel import client
from autoseg.planning.prompts import POLYP
from autoseg.schema.omnimodel import OmnimodelRecord
from autoseg.schema.prediction import PredictionRecord
from autoseg.schema.scores import Scores
from autoseg.support.files import read_artefact
from tests.omnimodel.mock_server import KEY, Server

pytest.importorskip("google.genai")
pytest.importorskip("openai")


def ask(root: Path, server: Server, reader: str = "gemini", *more: str, consent: bool = True) -> int:
    endpoint = server.url if reader == "gemini" else f"{server.url}/v1"
    arguments = ["-i", str(root.parent / "images"), "-o", str(root.parent / "out"), "-d", "Polyps", "-m", reader]
    arguments += ["--root", str(root), "--endpoint", endpoint, "--rate", "0", "--yes", *more]
    arguments += ["--omnimodel", "painter-1"] if reader == "image_edit" else []
    return predict.main([*arguments, "--send-images-to", reader] if consent else arguments)


def record(root: Path) -> OmnimodelRecord:
    return read_artefact(root.parent / "out" / "omnimodel.json", OmnimodelRecord)


@pytest.mark.parametrize("reader", ["gemini", "image_edit"])
def test_masks_are_written_and_scored_like_those_of_any_model(polyps: Path, server: Server, reader: str) -> None:
    assert ask(polyps, server, reader) == 0
    out = polyps.parent / "out"
    assert {request["prompt"] for request in server.requests} == {POLYP}
    for index in range(3):
        mask = cv2.imread(str(out / f"polyp_{index}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(mask, cv2.imread(str(polyps.parent / f"masks/polyp_{index}.png"), cv2.IMREAD_UNCHANGED))
        assert (out / "answers" / f"polyp_{index}.polyp.png").stat().st_size > 0
    prediction = read_artefact(out / "prediction.json", PredictionRecord)
    assert prediction.models == (reader,) and len(prediction.cases) == 3
    assert record(polyps).family == "omnimodel"
    assert evaluate.main([str(out), str(polyps.parent / "masks")]) == 0
    assert read_artefact(out / "scores.json", Scores).overall["micro.dice"] == 1


def test_nothing_is_sent_unless_the_service_is_named(
    polyps: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(polyps, server, consent=False) == 2
    assert "--send-images-to gemini" in capsys.readouterr().err
    assert ask(polyps, server, "gemini", "--send-images-to", "image_edit", consent=False) == 2
    assert not server.requests
    assert not (polyps.parent / "out").exists()


def test_without_a_terminal_nothing_is_sent(polyps: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-i", str(polyps.parent / "images"), "-o", str(polyps.parent / "out"), "-d", "501", "-m", "gemini"]
    assert predict.main([*arguments, "--root", str(polyps), "--endpoint", server.url, "--send-images-to", "gemini"]) == 2
    errors = capsys.readouterr().err
    assert "send 3 requests" in errors and "--yes" in errors
    assert not server.requests


def test_a_rerun_sends_nothing(polyps: Path, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    assert ask(polyps, server) == 0
    assert len(server.requests) == 3
    assert ask(polyps, server) == 0
    assert len(server.requests) == 3
    assert record(polyps).counts["cached"] == 3 and record(polyps).counts["requests"] == 0
    # Another prompt is another question.
    assert ask(polyps, server, "image_edit") == 0
    assert len(server.requests) == 6


def test_only_pixels_are_sent(polyps: Path, server: Server) -> None:
    path = polyps.parent / "images" / "polyp_0.png"
    metadata = PngInfo()
    metadata.add_text("PatientName", "Somebody^Ill")
    Pillow.open(path).save(path, pnginfo=metadata)
    assert b"Somebody" in path.read_bytes()
    assert ask(polyps, server) == 0
    for request in server.requests:
        assert b"Somebody" not in request["image"] and b"polyp_0" not in request["image"]
        assert not Pillow.open(io.BytesIO(request["image"])).info


def test_the_key_is_never_written(
    polyps: Path, server: Server, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.script = ["mask", "503", "mask"]
    assert ask(polyps, server) == 0
    server.script = ["401"]
    assert ask(polyps, server, "image_edit") == 2
    assert {request["key"] for request in server.requests} == {KEY}
    captured = capsys.readouterr()
    assert KEY not in captured.out + captured.err + caplog.text
    written = [path for path in polyps.parent.rglob("*") if path.is_file()]
    assert any(path.parent.name == "omnimodel" for path in written)
    for path in written:
        assert KEY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("reader", ["gemini", "image_edit"])
@pytest.mark.parametrize(("behaviour", "outcome"), [
    ("refused", "refused"), ("text", "text"), ("garbage", "failed"), ("echo", "echo"), ("nonsense", "failed"),
    ("400", "failed"),
])  # fmt: skip
def test_an_answer_without_a_mask_fails_its_case_only(
    polyps: Path, server: Server, reader: str, behaviour: str, outcome: str
) -> None:
    server.script = [behaviour, "mask"]
    assert ask(polyps, server, reader) == 1
    prediction = read_artefact(polyps.parent / "out" / "prediction.json", PredictionRecord)
    # A nonsense reply may look like an empty answer; in both cases there is no mask.
    assert set(prediction.failed) == {"polyp_0"}
    counts = record(polyps).counts
    assert counts["mask"] == 2
    assert counts.get(outcome, 0) + (counts.get("text", 0) if behaviour == "nonsense" else 0) == 1
    assert not (polyps.parent / "out" / "polyp_0.png").exists()


@pytest.mark.parametrize("reader", ["gemini", "image_edit"])
@pytest.mark.parametrize("behaviour", ["resized", "coloured", "inverted", "overlay"])
def test_other_styles_of_masks_are_corrected_and_counted(polyps: Path, server: Server, reader: str, behaviour: str) -> None:
    server.script = [behaviour]
    assert ask(polyps, server, reader) == 0
    assert record(polyps).counts[behaviour] == 3
    for index in range(3):
        mask = cv2.imread(str(polyps.parent / f"out/polyp_{index}.png"), cv2.IMREAD_UNCHANGED)
        true = cv2.imread(str(polyps.parent / f"masks/polyp_{index}.png"), cv2.IMREAD_UNCHANGED)
        overlap = 2 * np.count_nonzero((mask == 1) & (true == 1)) / (mask.sum() + true.sum())
        assert overlap > 0.95


@pytest.mark.parametrize("behaviour", ["blocked", "empty", "markdown", "link"])
def test_answers_that_only_one_service_gives(polyps: Path, server: Server, behaviour: str) -> None:
    server.script = [behaviour]
    reader = "image_edit" if behaviour == "link" else "gemini"
    assert ask(polyps, server, reader) == (0 if behaviour == "markdown" else 1)
    outcome = {"blocked": "refused", "empty": "text", "markdown": "mask", "link": "failed"}[behaviour]
    assert record(polyps).counts[outcome] == 3


@pytest.mark.parametrize("reader", ["gemini", "image_edit"])
@pytest.mark.parametrize("behaviour", ["503", "429", "slow", "cut"])
def test_transient_errors_are_retried(
    polyps: Path, server: Server, reader: str, behaviour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(client.time, "sleep", pauses.append)
    server.script = [behaviour, behaviour, "mask"]
    assert ask(polyps, server, reader, "--timeout", "0.7") == 0
    assert pauses == [2.0, 4.0]
    assert record(polyps).counts == {"questions": 3, "requests": 5, "mask": 3, "cached": 0}


def test_a_wrong_key_stops_at_once(polyps: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    for reader, code in (("gemini", "403"), ("image_edit", "401")):
        server.requests.clear()
        server.script = [code]
        assert ask(polyps, server, reader) == 2
        assert len(server.requests) == 1
        assert "KEY" in capsys.readouterr().err


def test_without_a_key_the_message_says_where_to_put_one(
    polyps: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GEMINI_API_KEY")
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    assert ask(polyps, server) == 2
    assert "GEMINI_API_KEY" in capsys.readouterr().err
    assert not server.requests


def test_a_refusal_is_cached_until_ask_again(polyps: Path, server: Server) -> None:
    server.script = ["refused", "mask"]
    assert ask(polyps, server) == 1
    assert ask(polyps, server) == 1
    assert len(server.requests) == 3
    assert ask(polyps, server, "gemini", "--ask-again") == 0
    assert len(server.requests) == 4


def test_a_second_call_keeps_the_records_of_the_first(polyps: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    images, out = polyps.parent / "images", polyps.parent / "out"
    later = images / "polyp_2.png"
    content = later.read_bytes()
    later.unlink()
    assert ask(polyps, server) == 0
    for path in images.iterdir():
        path.unlink()
    later.write_bytes(content)
    assert ask(polyps, server) == 0
    names = [f"polyp_{index}" for index in range(3)]
    assert [case.case for case in read_artefact(out / "prediction.json", PredictionRecord).cases] == names
    assert [question.case for question in record(polyps).questions] == names and record(polyps).counts["mask"] == 3
    # Another reader would leave one record for masks of two.
    sent = len(server.requests)
    assert ask(polyps, server, "image_edit") == 2
    assert "masks of other networks" in capsys.readouterr().err and len(server.requests) == sent
