from __future__ import annotations

from collections.abc import Iterator

import pytest

from autoseg.support.extensions import MODELS
from tests.training import tiny


@pytest.fixture(autouse=True)
def _tiny_model() -> Iterator[None]:
    tiny.register()
    yield
    MODELS.remove(tiny.NAME)
