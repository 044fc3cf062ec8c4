"""Training and planning through `autoseg.api`: mistakes are found early, and plans keep what the user decided."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoseg import api
from autoseg.support.errors import AutosegError
from tests import generated

CASES = 12


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with one raw dataset, Lesion."""
    root = tmp_path_factory.mktemp("raw")
    images, masks = generated.write_folders(root / "photos", "lesion", CASES)
    api.convert_folders(images, masks, "Lesion", labels=("background", "lesion"), root=root)
    return root


def test_mistakes_are_found_before_a_dataset_is_planned(raw, tmp_path, monkeypatch):
    def plans(*arguments, **options):
        raise AssertionError("planned")

    monkeypatch.setattr("autoseg.api.training._prepare", plans)
    monkeypatch.setattr("autoseg.api.runner._plan", plans)
    for call in (
        lambda **options: api.train("Lesion", "unet", 0, root=raw, **options),
        lambda **options: api.run("Lesion", "unet", 0, root=raw, **options),
    ):
        with pytest.raises(AutosegError, match="there is no weights file"):
            call(pretrained=tmp_path / "missing.pt")
        with pytest.raises(AutosegError, match="there is no logger 'wanddb'"):
            call(log_to=["wanddb"])
        with monkeypatch.context() as without_libraries:
            without_libraries.setattr("importlib.util.find_spec", lambda name: None)
            with pytest.raises(AutosegError, match="wandb is not installed"):
                call(log_to=["wandb"])
