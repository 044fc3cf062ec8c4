from __future__ import annotations

from collections.abc import Iterator

import pytest

from autoseg.models import registry
from tests.training import tiny


@pytest.fixture(autouse=True)
def _tiny_model() -> Iterator[None]:
    tiny.register()
    yield
    registry._MODULES.pop(tiny.NAME, None)
    registry._table.cache_clear()
