"""The foundation presets: licences, normalisation, and the files that timm publishes for each variant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch

from autoseg import api, models
from autoseg.cli import models as command
from autoseg.models.published import match_published
from autoseg.support.errors import AutosegError

PRESETS = [
    (name, variant.name)
    for name in ("dinov2", "sam2_hiera", "pe_spatial", "dinov3_vit", "dinov3_convnext")
    for variant in models.spec(name).variants
]


@pytest.mark.parametrize(("name", "variant"), PRESETS)
def test_the_published_file_fills_the_encoder(name: str, variant: str) -> None:
    (weights,) = models.spec(name).weights_for(variant)
    encoder = weights.repository.removeprefix("timm/")
    with torch.device("meta"):
        network, tensors = models.build(name, variant), timm.create_model(encoder).state_dict()
    fitting, _ = match_published(network, tensors)
    assert {f"encoder.{key}" for key, _ in network.encoder.named_parameters()} <= set(fitting)  # type: ignore[union-attr, operator]
    licence = "DINOv3 licence" if "dinov3" in name else "Apache-2.0"
    assert weights.licence == licence and weights.commercial and weights.address.startswith("https://huggingface.co/timm/")


def test_the_normalisation_is_that_of_each_encoder() -> None:
    assert models.spec("pe_spatial").weights[0].mean == (0.5, 0.5, 0.5)
    assert models.spec("dinov2").weights[0].mean == (0.485, 0.456, 0.406)


def test_the_table_lists_encoders_of_timm_by_name_and_pattern(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row.name: row for row in api.model_table(tmp_path, models=["timm:test_vit*", "timm:resnet18", "dinov3_vit"])}
    assert rows["dinov3_vit"].licences == ["DINOv3 licence"] and rows["dinov3_vit"].family == "foundation"
    assert rows["timm:resnet18"].divisor == 32 and rows["timm:resnet18"].parameters > 11e6
    assert len([name for name in rows if name.startswith("timm:test_vit")]) > 1
    assert command.main(["timm:resnet18", "--json", "--root", str(tmp_path)]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["timm:resnet18"]
    with pytest.raises(AutosegError, match="matches 'timm:no_such"):
        api.model_table(tmp_path, models=["timm:no_such*"])
    assert command.main(["timm:resnet99"]) == 2
    assert "did you mean timm:resnet" in capsys.readouterr().err
