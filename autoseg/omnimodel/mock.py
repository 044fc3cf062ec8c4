"""A stand-in for an image service, to try a study without a key and without sending anything. It is no model."""

from __future__ import annotations

import cv2
import numpy as np

from autoseg.omnimodel.backends import Answer


class MockService:
    """Answers with the brighter part of the picture (Otsu's threshold), whatever the prompt says."""

    name, model, endpoint = "mock", "mock service (no model)", ""

    def ask(self, picture: bytes, prompt: str) -> Answer:
        """picture: PNG. The answer is a PNG of its size, black and white."""
        gray = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert gray is not None  # autoseg has written the picture.
        _, mask = cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        return Answer(cv2.imencode(".png", mask)[1].tobytes())
