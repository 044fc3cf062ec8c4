"""The network of documentation/add_a_model.md, as the package the page shows."""

from __future__ import annotations

from pathlib import Path

from autoseg.planning.model_checks import PROMISES
from tests.documentation import pages

PAGE = "add_a_model.md"


def test_the_pages_network_keeps_every_promise_of_the_pages_command(tmp_path: Path) -> None:
    package = pages.installed(pages.write(tmp_path / "my-package", pages.files(PAGE)), tmp_path / "installed")
    (check,) = pages.commands(PAGE, "autoseg_check_model")
    said = pages.run([check, "autoseg_models --json"], tmp_path, package)
    for promise in PROMISES:
        assert f"ok    mynet small: {promise.title}" in said
    assert '"parameters": 9602' in said and "all checks passed" in said
