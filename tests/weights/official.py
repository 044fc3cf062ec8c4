"""Generated files under the official names and shapes: small random values instead of trained ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from autoseg.models import registry
from autoseg.models.published_weights import PublishedWeights

GOLDEN = Path(__file__).parents[1] / "golden"
# Model -> a variant whose files are small.
SMALL = {
    "segformer": "b1", "vwformer_mit": "b1", "segnext": "s", "vwformer_convnext": "t", "hiformer": "S", "internimage": "t",
    "transnext": "tiny", "hsnet": "pvt_v2_b2", "mask2former": "swin-t", "swin_umamba": "tiny", "unet": "64",
    "missformer": "free", "efficientnet_lite0_upernet": "light",
}  # fmt: skip


def _values(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in shapes.items():
        scale = (name.endswith("weight") and len(shape) == 1) or name.endswith("running_var")
        tensors[name] = torch.ones(shape) if scale else 0.02 * torch.randn(shape, generator=generator)
    return tensors


def _encoder(golden: str, prefix: str = "backbone.", depths: tuple[int, ...] = (99,) * 4, block: str = "") -> dict[str, Tensor]:
    """The encoder of a golden file, with fewer blocks in each stage. block: pattern of a block's stage and number."""
    record = json.loads((GOLDEN / f"{golden}.json").read_text())
    shapes = {**record["parameters"], **record["buffers"]}
    kept = {}
    for name, shape in shapes.items():
        match = re.match(block, name.removeprefix(prefix)) if block else None
        if name.startswith(prefix) and (match is None or int(match[2]) < depths[int(match[1])]):
            kept[name.removeprefix(prefix)] = shape
    return _values(kept)



def _mit_b1() -> dict[str, Tensor]:
    record = _encoder("segformer")
    kept = {name: tensor for name, tensor in record.items() if not re.match(r"block\d\.(?![01]\.)", name)}
    return kept | _values({"head.weight": [1000, 512], "head.bias": [1000]})


def _mscan_s() -> dict[str, Tensor]:
    depths = {"1": 2, "2": 2, "3": 4, "4": 2}
    kept = {}
    for name, tensor in _encoder("segnext").items():
        match = re.match(r"block(\d)\.(\d+)\.", name)
        if match is None or int(match[2]) < depths[match[1]]:
            kept[name] = tensor
    return kept


def _vmamba() -> dict[str, Tensor]:
    tensors = {}
    for name, tensor in _encoder("swin_umamba", "vssm_encoder.").items():
        tensors[re.sub(r"^downsamples\.(\d)", r"layers.\1.downsample", name)] = tensor
    return tensors | _values({"patch_embed.proj.weight": [96, 3, 4, 4], "norm.weight": [768], "head.weight": [1000, 768]})


def _vgg13() -> dict[str, Tensor]:
    """Without the classifier's hidden layers, which are most of the file and belong to no network here."""
    tensors = torchvision.models.vgg13_bn(num_classes=2).state_dict()
    return {name: tensor for name, tensor in tensors.items() if name.startswith("features.")}


def _official_swin() -> dict[str, Tensor]:
    tensors = timm.create_model("swin_tiny_patch4_window7_224").state_dict()
    stage = re.compile(r"layers\.(\d)\.downsample")
    shifted = {stage.sub(lambda match: f"layers.{int(match[1]) - 1}.downsample", name): one for name, one in tensors.items()}
    return {name.replace("head.fc.", "head."): one for name, one in shifted.items()}


def _efficientnet() -> dict[str, Tensor]:
    return timm.create_model("tf_efficientnet_lite0").state_dict()


_MAKERS: dict[str, Callable[[], dict[str, Tensor]]] = {
    "smp-hub/mit_b1.imagenet/model.safetensors": _mit_b1,
    "mscan_s_20230227-f33ccdf2.pth": _mscan_s,
    "OpenGVLab/InternImage/internimage_t_1k_224.pth": lambda: _encoder("internimage"),
    "DaiShiResearch/transnext-tiny-224-1k/transnext_tiny_224_1k.pth": lambda: _encoder("transnext"),
    "convnext-tiny_3rdparty_32xb128-noema_in1k_20220301-795e9634.pth": lambda: torchvision.models.convnext_tiny().state_dict(),
    "pvt_v2_b2.pth": lambda: _encoder("hsnet"),
    "swin_tiny_patch4_window7_224.pth": _official_swin,
    "resnet34-b627a593.pth": lambda: torchvision.models.resnet34().state_dict(),
    "vssmtiny_dp01_ckpt_epoch_292.pth": _vmamba,
    "vgg13_bn-abd245e5.pth": _vgg13,
    "timm/tf_efficientnet_lite0.in1k/model.safetensors": _efficientnet,
}  # fmt: skip


def save_official(weights: PublishedWeights, path: Path) -> Path:
    """Write a file as published, in half precision to be small."""
    tensors = {name: one.half() if one.is_floating_point() else one for name, one in _MAKERS[weights.path]().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({name: one.contiguous() for name, one in tensors.items()}, path)
    else:
        torch.save({"model": tensors}, path)
    return path


def first_files(model: str) -> Iterator[PublishedWeights]:
    """For each part of a model's small variant, the preferred file that has an address."""
    spec = registry.spec(model)
    parts: dict[str, PublishedWeights] = {}
    for weights in spec.weights_for(SMALL[model], study=True):
        if weights.address:
            parts.setdefault(weights.part, weights)
    return iter(parts.values())
