"""Encoders and whole models under the names of timm, torchvision, transformers and mmsegmentation, and options of the study."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import Tensor

from autoseg import models
from autoseg.models.base import ModelOutput, SegmentationNetwork
from autoseg.support.errors import SeveralProblems

GOLDEN = Path(__file__).parents[1] / "golden"


def golden_mit(model: str) -> dict[str, Tensor]:
    """Random tensors under the official names of a whole model, and a classifier."""
    record = json.loads((GOLDEN / f"{model}.json").read_text())
    generator = torch.Generator().manual_seed(0)
    shapes = {name.removeprefix("backbone."): shape for name, shape in record["parameters"].items()}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def in_transformers_4(official: dict[str, Tensor]) -> dict[str, Tensor]:
    rules = (
        (r"^patch_embed(\d)\.proj", r"segformer.encoder.patch_embeddings.<\1>.proj"),
        (r"^patch_embed(\d)\.norm", r"segformer.encoder.patch_embeddings.<\1>.layer_norm"),
        (r"^norm(\d)\.", r"segformer.encoder.layer_norm.<\1>."),
        (r"^block(\d)\.", r"segformer.encoder.block.<\1>."),
        (r"\.norm([12])\.", r".layer_norm_\1."),
        (r"\.attn\.q\.", r".attention.self.query."),
        (r"\.attn\.(sr)\.", r".attention.self.\1."),
        (r"\.attn\.norm\.", r".attention.self.layer_norm."),
        (r"\.attn\.proj\.", r".attention.output.dense."),
        (r"\.mlp\.fc([12])\.", r".mlp.dense\1."),
        (r"^decode_head\.linear_c(\d)\.", r"decode_head.linear_c.<\1>."),
        (r"linear_fuse\.conv\.", "linear_fuse."), (r"linear_fuse\.bn\.", "batch_norm."), (r"linear_pred\.", "classifier."),
    )  # fmt: skip
    split = ("attention.self.key.", "attention.self.value.")
    return renamed(official, rules, split)


def in_transformers_5(official: dict[str, Tensor]) -> dict[str, Tensor]:
    rules = (
        (r"^patch_embed(\d)\.proj", r"segformer.stages.<\1>.patch_embeddings.proj"),
        (r"^patch_embed(\d)\.norm", r"segformer.stages.<\1>.patch_embeddings.layer_norm"),
        (r"^norm(\d)\.", r"segformer.stages.<\1>.layer_norm."),
        (r"^block(\d)\.", r"segformer.stages.<\1>.blocks."),
        (r"\.norm1\.", ".layernorm_before."), (r"\.norm2\.", ".layernorm_after."),
        (r"\.attn\.q\.", r".attention.q_proj."),
        (r"\.attn\.sr\.", r".attention.sequence_reduction.sequence_reduction."),
        (r"\.attn\.norm\.", r".attention.sequence_reduction.layer_norm."),
        (r"\.attn\.proj\.", r".attention.o_proj."),
        (r"^decode_head\.linear_c(\d)\.", r"decode_head.linear_projections.<\1>."),
        (r"linear_fuse\.conv\.", "linear_fuse."), (r"linear_fuse\.bn\.", "batch_norm."), (r"linear_pred\.", "classifier."),
    )  # fmt: skip
    return renamed(official, rules, ("attention.k_proj.", "attention.v_proj."))


def in_mmsegmentation(official: dict[str, Tensor]) -> dict[str, Tensor]:
    rules = (
        (r"^patch_embed(\d)\.proj", r"backbone.layers.<\1>.0.projection"),
        (r"^patch_embed(\d)\.norm", r"backbone.layers.<\1>.0.norm"),
        (r"^norm(\d)\.", r"backbone.layers.<\1>.2."),
        (r"^block(\d)\.", r"backbone.layers.<\1>.1."),
        (r"\.attn\.proj\.", r".attn.attn.out_proj."),
        (r"\.mlp\.fc1\.", ".ffn.layers.0."), (r"\.mlp\.dwconv\.dwconv\.", ".ffn.layers.1."),
        (r"\.mlp\.fc2\.", ".ffn.layers.4."),
    )  # fmt: skip
    stacked = {}
    for name, tensor in official.items():
        if ".attn.q." in name:
            both = torch.cat([tensor, official[name.replace(".q.", ".kv.")]])
            stacked[name.replace(".attn.q.", ".attn.attn.in_proj_")] = both
        elif ".attn.kv." not in name and not name.startswith("decode_head."):
            stacked[name] = tensor[..., None, None] if re.search(r"mlp\.fc.\.weight", name) else tensor
    layers = ("convs.0.conv.weight", "fusion_conv.bn.bias", "conv_seg.bias")
    own_head = {f"decode_head.{name}": torch.ones(2) for name in layers}
    return renamed(stacked, rules, None) | own_head


def renamed(tensors: dict[str, Tensor], rules: tuple[tuple[str, str], ...], split: tuple[str, str] | None) -> dict[str, Tensor]:
    result = {}
    for name, tensor in tensors.items():
        theirs = name
        for pattern, replacement in rules:
            theirs = re.sub(pattern, replacement, theirs)
        theirs = re.sub(r"<(\d)>", lambda match: str(int(match[1]) - 1), theirs)
        if split is not None and ".attn.kv." in theirs:
            for part, words in zip(tensor.chunk(2), split, strict=True):
                result[theirs.replace("attn.kv.", words)] = part
        else:
            result[theirs] = tensor
    return result


def loaded(model: str, variant: str, tensors: dict[str, Tensor]) -> tuple[SegmentationNetwork, models.LoadReport]:
    torch.manual_seed(0)
    network = models.build(model, variant)
    return network, models.load_published(network, tensors)


@pytest.mark.parametrize("theirs", [in_transformers_4, in_transformers_5, in_mmsegmentation])
def test_segformer_has_the_same_weights_under_every_librarys_names(theirs: Callable[..., dict[str, Tensor]]) -> None:
    official = golden_mit("segformer")
    # The head of another number of classes stays as initialised.
    head = ("decode_head.linear_pred", "decode_head.conv")
    official = {name: one for name, one in official.items() if not name.startswith(head)}
    expected, _ = loaded("segformer", "b3", official)
    network, report = loaded("segformer", "b3", theirs(official))
    own_head = theirs is in_mmsegmentation
    for (name, tensor), other in zip(network.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(tensor, other) or (own_head and not name.startswith("encoder.")), name
    assert len(report.dropped) == (3 if own_head else 0)


@pytest.mark.parametrize("theirs", [in_transformers_4, in_transformers_5, in_mmsegmentation])
@pytest.mark.parametrize("model", ["vwformer_mit", "missformer"])
def test_other_models_take_the_encoder_under_every_name(model: str, theirs: Callable[..., dict[str, Tensor]]) -> None:
    encoder = {name: tensor for name, tensor in golden_mit("segformer").items() if not name.startswith("decode_head.")}
    encoder = mit_b1(encoder)
    variant = {"vwformer_mit": "b1", "missformer": "free"}[model]
    file = {name: tensor for name, tensor in theirs(encoder).items() if not name.startswith("decode_head.")}
    expected, _ = loaded(model, variant, encoder)
    network, report = loaded(model, variant, file)
    assert all(torch.equal(*pair) for pair in zip(network.state_dict().values(), expected.state_dict().values(), strict=True))
    left = [name for name in report.missing if name.startswith("encoder.") and not re.search(r"\.feed\.(norm|spare)\.", name)]
    assert not left


def mit_b1(b3: dict[str, Tensor]) -> dict[str, Tensor]:
    """MiT-B1 has the widths of B3 and two blocks in each stage."""
    return {name: tensor for name, tensor in b3.items() if not re.match(r"block\d\.(?![01]\.)", name)}


def swin_file(library: str, size: str) -> dict[str, Tensor]:
    torch.manual_seed(1)
    if library == "timm":
        word = {"t": "tiny", "s": "small"}[size]
        return timm.create_model(f"swin_{word}_patch4_window7_224").state_dict()
    return getattr(torchvision.models, f"swin_{size}")().state_dict()


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_swin_of_other_libraries_gives_their_features(library: str) -> None:
    tensors = swin_file(library, "t")
    network, report = loaded("mask2former", "swin-t", tensors)
    # No classifier has norms for the maps, and the deepest one's is not the classifier's.
    assert not [name for name in report.missing if name.startswith("encoder.") and ".norms." not in name]
    # Up to the last stage: a map of one window is shifted by detection networks, and not by classifiers.
    image, encoder = torch.randn(1, 3, 224, 224), network.eval().encoder
    with torch.no_grad():
        x = encoder.embed_norm(encoder.embed(image).permute(0, 2, 3, 1))
        for stage in encoder.stages[:3]:
            _, x = stage(x)
        if library == "timm":
            theirs = timm.create_model("swin_tiny_patch4_window7_224").eval()
            theirs.load_state_dict(tensors)
            expected = theirs.layers[3].downsample(theirs.layers[:3](theirs.patch_embed(image)))
        else:
            theirs = torchvision.models.swin_t().eval()
            theirs.load_state_dict(tensors)
            expected = theirs.features[:7](image)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-4 * float(expected.std()))


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_hiformer_takes_swin_of_other_libraries(library: str) -> None:
    tensors = swin_file(library, "t")
    network, report = loaded("hiformer", "B", tensors)
    assert not [name for name in report.missing if name.startswith("swin.")]
    names = {"timm": "layers.2.downsample.reduction.weight", "torchvision": "features.4.reduction.weight"}
    assert torch.equal(network.swin[2].downsample.reduction.weight, tensors[names[library]])
    names = {"timm": "layers.2.blocks.5.mlp.fc2.weight", "torchvision": "features.5.5.mlp.3.weight"}
    assert torch.equal(network.swin[2].blocks[5].mlp.fc2.weight, tensors[names[library]])


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_another_size_of_swin_does_not_fit(library: str) -> None:
    with pytest.raises(SeveralProblems, match="do not fit"):
        loaded("mask2former", "swin-t", swin_file(library, "s"))


@pytest.mark.parametrize("norm", [True, False])
def test_vgg13_fills_the_upper_levels_of_unet(norm: bool) -> None:
    torch.manual_seed(0)
    vgg = torchvision.models.vgg13_bn() if norm else torchvision.models.vgg13()
    for module in vgg.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -1, 1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
        elif isinstance(module, torch.nn.Conv2d):
            torch.nn.init.uniform_(module.bias, -1, 1)
    network, report = loaded("unet", "64", vgg.state_dict())
    weights = {name for name in report.missing if name.startswith("encoder.")}
    assert all(name.startswith("encoder.4.") or (not norm and re.match(r"encoder\.\d\.[14]\.", name)) for name in weights)
    assert all(name.startswith(("classifier.", "features.")) for name in report.dropped if not name.endswith("tracked"))
    assert torch.equal(network.encoder[3][3].weight, vgg.features[24 if norm else 17].weight)
    if norm:
        # The convolutions' biases are part of the means: the features are VGG13's.
        image = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            ours, maps = image, network.eval().encoder
            for level in range(4):
                ours = maps[level](torch.nn.functional.max_pool2d(ours, 2) if level else ours)
            expected = vgg.eval().features[:27](image)
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", [True, False])
def test_unet_without_norm_has_the_features_of_vgg13(norm: bool) -> None:
    """Batch norm of the file becomes part of the convolutions."""
    torch.manual_seed(0)
    vgg = torchvision.models.vgg13_bn() if norm else torchvision.models.vgg13()
    for module in vgg.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -1, 1)
            for values in (module.running_var, module.weight, module.bias):
                torch.nn.init.uniform_(values, 0.5, 2)
        elif isinstance(module, torch.nn.Conv2d):
            torch.nn.init.uniform_(module.bias, -1, 1)
    network = models.build("unet", "64", norm=False)
    report = models.load_published(network, vgg.state_dict())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    assert all(name.startswith("encoder.4.") for name in report.missing if name.startswith("encoder."))
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        ours, maps = image, network.eval().encoder
        for level in range(4):
            ours = maps[level](torch.nn.functional.max_pool2d(ours, 2) if level else ours)
        expected = vgg.eval().features[: 27 if norm else 19](image)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert 31.0e6 < parameters < 31.1e6


def test_missformer_shrinks_with_antialiasing_if_asked_to() -> None:
    torch.manual_seed(0)
    network = models.build("missformer", antialias=True)
    seen: list[torch.Tensor] = []
    network.segment = lambda x: (seen.append(x), ModelOutput(x[:, :2]))[1]  # type: ignore[method-assign]
    fine = torch.zeros(1, 3, 1120, 1120)
    fine[..., ::5] = 1
    assert network.eval()(fine).shape == (1, 2, 1120, 1120)
    network.antialias = False
    network(fine)
    # Of five columns one is bright: averages see a fifth of it everywhere, single points nothing.
    assert seen[0].std() < 0.02 and seen[0].mean() == pytest.approx(0.2, abs=0.01)
    assert seen[1].max() == 0


def test_vgg13_does_not_fit_a_narrow_unet() -> None:
    with pytest.raises(SeveralProblems, match=r"encoder.0.0.weight: the file has shape \(64, 3, 3, 3\)"):
        loaded("unet", "32", torchvision.models.vgg13_bn().state_dict())


@pytest.mark.parametrize("variant", ["224", "free"])
def test_mit_b1_fills_the_encoder_of_missformer(variant: str) -> None:
    encoder = mit_b1({name: tensor for name, tensor in golden_mit("segformer").items() if not name.startswith("decode_head.")})
    network, report = loaded("missformer", variant, encoder | {"head.weight": torch.ones(1000, 512)})
    assert list(report.dropped) == ["head.weight"]
    assert torch.equal(network.encoder[2].blocks[1].feed.widen.weight, encoder["block3.1.mlp.fc1.weight"])
    assert torch.equal(network.encoder[0].norm.bias, encoder["norm1.bias"])
    in_encoder = [name for name in report.missing if name.startswith("encoder.")]
    assert in_encoder and all(re.search(r"\.feed\.(norm|spare\.\d)\.", name) for name in in_encoder)


def test_mit_b3_does_not_fit_missformer() -> None:
    encoder = {name: tensor for name, tensor in golden_mit("segformer").items() if not name.startswith("decode_head.")}
    with pytest.raises(SeveralProblems, match="do not fit MISSFormer"):
        loaded("missformer", "224", encoder)
