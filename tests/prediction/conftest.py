import pytest

from autoseg.training import checkpoint
from tests.prediction.stand_in import Bright


@pytest.fixture
def bright_is_registered(monkeypatch):
    """Checkpoints of "bright" load: the registry knows real architectures only."""
    monkeypatch.setattr(checkpoint, "build_network", lambda *_: Bright())
