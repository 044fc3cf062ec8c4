"""The table of benchmarks.foundation from stored results, and the names of the export that the weights come from."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import foundation


def row(arm: str, fold: int, dice: float) -> dict[str, Any]:
    return {
        "set": "busi", "arm": arm, "fold": fold, "minutes": 4.0, "steps": 100 + fold, "processor_seconds": 240.0,
        "peak_memory": 2**30, "dice": {"a": dice, "b": dice}, "case_dice": [dice] * 4,
    }  # fmt: skip


def test_the_table_comes_from_what_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row("tuned", 0, 0.8), row("lite0", 0, 0.6), row("lite0", 1, 0.7), {**row("lite0", 0, 0.1), "minutes": 9.0}]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    monkeypatch.setattr(sys, "argv", ["foundation", "--output", str(tmp_path / "r.json")])
    foundation.main()
    first, second = capsys.readouterr().out.strip().split("\n\n9 minutes")
    assert first.startswith("4 minutes, the planner's inputs, a processor with bf16\n") and "0.100" in second
    lines = first.splitlines()[4:]
    assert [line.split(" | ")[1] for line in lines] == ["lite0", "tuned"]
    assert "| 2 | 100 | 4.0 | 1.0 GiB | 0.650 ± 0.071 | 0.650 (" in lines[0] and lines[0].endswith("| 0.710 |")
    assert "| 0.800 | 0.800 (0.800 to 0.800) |" in lines[1]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("backbone.embeddings.patch_embeddings.projection.weight", "patch_embed.proj.weight"),
        ("backbone.encoder.layer.11.attention.attention.key.bias", "blocks.11.attn.key.bias"),
        ("backbone.encoder.layer.0.layer_scale2.lambda1", "blocks.0.ls2.gamma"),
        ("backbone.layernorm.weight", "norm.weight"),
        ("onnx::MatMul_1966", ""),
    ],
)
def test_names_of_the_export_are_timms(key: str, name: str) -> None:
    assert foundation._timm_name(key) == name
