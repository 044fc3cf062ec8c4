import json

import numpy as np
import pytest
import torch

from autoseg.io import Image
from autoseg.models import registry
from autoseg.models.registry import build
from autoseg.prediction import onnx_file
from autoseg.prediction.onnx_file import export_onnx
from autoseg.schema.dataset import DatasetSpec
from autoseg.support.errors import AutosegError
from tests.prediction.stand_in import picture, trained

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
THREE = DatasetSpec(
    channel_names={"0": "R", "1": "G", "2": "B"},
    labels={"background": 0, "bright": 1, "dark": 2},
    numTraining=4,
    file_ending=".png",
)
IMAGES = [Image(array=picture((50 + 9 * number, 70), high=160 + 20 * number)[0], spacing=None) for number in range(3)]


@pytest.fixture
def member():
    torch.manual_seed(0)
    network = build("unet", "16", in_channels=3, num_classes=2, input_size=(32, 48))
    return trained(network, size=(32, 48), model="unet")


def test_the_file_computes_what_torch_computes_and_says_how_to_use_it(member, tmp_path):
    written = export_onnx(member, tmp_path / "u.onnx", IMAGES)
    assert written.images == 3 and written.difference < 1e-3 and written.agreement > 0.999
    assert "differ by at most" in str(written)
    model = onnx.load(tmp_path / "u.onnx")
    description = json.loads(next(entry.value for entry in model.metadata_props if entry.key == "autoseg"))
    assert description == json.loads((tmp_path / "u.onnx.json").read_text())
    assert description["input"]["shape"] == [1, 3, 32, 48] and description["normalisation"]["std"] == [255.0] * 3
    assert [one["name"] for one in description["classes"]] == ["background", "bright"] and "softmax" in description["after"][0]
    values = np.random.default_rng(0).normal(size=(1, 3, 32, 48)).astype(np.float32)
    outputs = onnxruntime.InferenceSession(tmp_path / "u.onnx").run(None, {"image": values})[0]
    with torch.no_grad():
        assert np.allclose(outputs, member.network(torch.from_numpy(values)).numpy(), atol=1e-4)


def test_a_file_that_computes_something_else_is_not_left(member, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "_TOLERANCE", -1.0)
    with pytest.raises(AutosegError, match="differs from torch"):
        export_onnx(member, tmp_path / "u.onnx", IMAGES)
    assert not list(tmp_path.iterdir())


def test_models_that_cannot_be_exported_say_so(member, tmp_path):
    for other in (name for name in registry.names() if registry.spec(name).no_onnx):
        other_member = trained(member.network, size=(32, 48), model=other)
        with pytest.raises(AutosegError, match=f"{other} cannot be exported to ONNX: {registry.spec(other).no_onnx}"):
            export_onnx(other_member, tmp_path / "u.onnx", IMAGES)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in registry.names() if not registry.spec(name).no_onnx])
def test_every_model_that_says_so_can_be_exported(name, tmp_path):
    torch.manual_seed(0)
    network = build(name, registry.spec(name).variants[0].name, num_classes=3, input_size=(64, 96))
    _gather_statistics(network)
    written = export_onnx(trained(network, size=(64, 96), model=name, spec=THREE), tmp_path / "n.onnx", IMAGES)
    assert written.images == len(IMAGES) and written.difference < 1e-3 and written.agreement > 0.995


def _gather_statistics(network):
    """As after some training: fresh ones would leave most of the arithmetic untested."""
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None
    with torch.no_grad():
        network.train()(torch.rand(4, 3, 64, 96))
