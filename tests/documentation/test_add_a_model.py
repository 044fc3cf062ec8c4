"""The network of documentation/add_a_model.md, as the package the page shows."""

from __future__ import annotations

from pathlib import Path

from autoseg.planning.model_checks import CHECKS
from tests.documentation import pages

PAGE = "add_a_model.md"


def test_example_network_passes_all_checks(tmp_path: Path) -> None:
    package = pages.install(pages.write(tmp_path / "my-package", pages.files(PAGE)), tmp_path / "installed")
    (check,) = pages.commands(PAGE, "autoseg_check_model")
    output = pages.run([check, "autoseg_models --json"], tmp_path, package)
    for model_check in CHECKS:
        assert f"ok    mynet small: {model_check.title}" in output
    assert '"parameters": 9602' in output and "all checks passed" in output
