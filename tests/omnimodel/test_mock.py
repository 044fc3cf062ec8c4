from __future__ import annotations

import cv2
import numpy as np

from autoseg.omnimodel.answers import read_answer
from autoseg.omnimodel.mock import MockService
from tests.omnimodel.mock_server import png


def test_the_stand_in_marks_the_bright_part() -> None:
    picture = np.full((40, 60, 3), 40, np.uint8)
    cv2.circle(picture, (30, 20), 8, (200, 210, 190), -1)
    answer = MockService().ask(png(picture), "anything")
    assert answer.picture is not None and not answer.refused
    mask = read_answer(answer.picture, picture).mask
    assert (mask == (picture.min(axis=2) > 100)).all()


def test_it_calls_itself_no_model() -> None:
    assert MockService.name == "mock" and "no model" in MockService.model and MockService.endpoint == ""
