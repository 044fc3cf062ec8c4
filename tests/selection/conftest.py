from __future__ import annotations

from pathlib import Path

import pytest

from tests.selection import world

jobs = world.jobs


@pytest.fixture(scope="session")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with one planned dataset; tests copy it."""
    with pytest.MonkeyPatch.context() as patch:
        world.register()
        world.known_times(patch)
        return world.make(tmp_path_factory.mktemp("selection"))
