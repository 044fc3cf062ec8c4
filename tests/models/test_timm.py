"""Encoders of timm as models: what is read from them, every kind on the meta device, small ones with values."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from autoseg import models
from autoseg.models import registry
from autoseg.models.base import LIKE_ANY_OTHER, ModelOutput, SegmentationNetwork
from autoseg.models.fake_tensors import fake_tensors
from autoseg.models.layers.timm_encoder import encoder_traits
from autoseg.models.layers.timm_network import TimmNetwork
from autoseg.models.published import load_published, match_published
from autoseg.planning.memory import count_flops, measure
from autoseg.planning.model_checks import CHECKS, Candidate, find_fault
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import MODELS
from autoseg.weights.pretrained import load_file

# Of every kind: strides from 1, 2, 4 or 8, and plain; several ways to depend on the image's size; NHWC answers.
KINDS = (
    "resnet18.a1_in1k", "regnety_004", "vgg11_bn", "hrnet_w18_small", "efficientnet_b0", "mobilenetv3_small_100",
    "convnext_tiny.dinov3_lvd1689m", "edgenext_xx_small", "fastvit_t8", "swin_tiny_patch4_window7_224.ms_in1k",
    "swinv2_tiny_window8_256", "maxvit_nano_rw_256", "coatnet_nano_rw_224", "hiera_tiny_224", "sam2_hiera_tiny.fb_r896_2pt1",
    "mvitv2_tiny", "pvt_v2_b0", "mambaout_femto", "efficientformerv2_s0", "efficientvit_m0",
    "vit_small_patch14_dinov2.lvd142m", "vit_small_patch16_dinov3.lvd1689m", "vit_pe_spatial_tiny_patch16_512.fb",
    "vit_base_patch16_siglip_224", "eva02_tiny_patch14_224", "xcit_nano_12_p16_224",
)  # fmt: skip
MORE = (
    "resnetv2_50", "mobilenetv4_conv_small", "convnext_atto", "repvit_m0_9", "nfnet_f0", "focalnet_tiny_srf", "caformer_s18",
    "tiny_vit_5m_224", "vit_small_patch14_reg4_dinov2", "deit3_small_patch16_224", "beit_base_patch16_224", "densenet121",
    "res2net50_26w_4s", "ghostnet_100", "davit_tiny", "twins_svt_small", "samvit_base_patch16", "nextvit_small",
)  # fmt: skip
# Ends of the names of parameters that belong to an image size.
SIZED = ("relative_position_bias_table", "pos_embed", "attention_biases", "attention_bias_idxs")
# Small enough to compute: convolutions, windows, tokens, a state space, a fixed size, and patches of 14.
SMALL = (
    "resnet10t", "mobilenetv3_small_050", "convnext_atto", "mambaout_femto", "pvt_v2_b0", "swin_tiny_patch4_window7_224",
    "coatnet_pico_rw_224", "vit_tiny_patch16_224", "eva02_tiny_patch14_224",
)  # fmt: skip


def on_meta(name: str, channels: int = 3, classes: int = 2, size: tuple[int, int] | None = None, **options) -> TimmNetwork:
    with torch.device("meta"):
        network = models.build(f"timm:{name}", None, channels, classes, size, **options)
    assert isinstance(network, TimmNetwork)
    return network


@pytest.mark.parametrize("name", [*KINDS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_every_kind_keeps_the_contract_without_values(name: str) -> None:
    """Shapes, the first layer, memory and operations; and every tensor of timm's file is used, or dropped with a reason."""
    spec = registry.spec(f"timm:{name}")
    assert spec.name == f"timm:{name}" and spec.family in ("generalist", "foundation") and spec.citation
    three, five = on_meta(name), on_meta(name, 5, 6, (96, 128))
    with fake_tensors(five, "cpu"):
        output = five.train()(torch.zeros(2, 5, 97, 64))
        assert isinstance(output, ModelOutput) and output.logits.shape == (2, 6, 97, 64)
        assert five.eval()(torch.zeros(1, 5, 65, 97)).shape == (1, 6, 65, 97)
    assert measure(five, (2, 5, 96, 128)).activations > 0 and count_flops(five, (1, 5, 96, 128)) > 0
    shapes = [{key: one.shape for key, one in network.encoder.named_parameters()} for network in (three, five)]
    changed = {f"encoder.{key}" for key in shapes[0] if shapes[0][key] != shapes[1][key]}
    sized = {key for key in changed if key.endswith(SIZED)}
    assert changed - sized == set(five.stem_weights) and (not sized or three.traits.takes_size)
    with torch.device("meta"):
        tensors = whole_network(name).state_dict()
    fitting, report = match_published(three, tensors)
    assert {f"encoder.{key}" for key in shapes[0]} <= set(fitting)
    assert all(report.dropped.values()) and not [key for key in report.missing if key.startswith("encoder.")]


def whole_network(name: str) -> torch.nn.Module:
    """RegNet's constructor computes with tensors, which have no values on the meta device."""
    if name.startswith("regnet"):
        with torch.device("cpu"):
            return timm.create_model(name).to("meta")
    return timm.create_model(name)


@pytest.mark.parametrize("name", SMALL)
def test_small_ones_pass_every_check_with_values(name: str) -> None:
    candidate = Candidate(f"timm:{name}", "standard")
    assert {check.title: fault for check in CHECKS if (fault := find_fault(check, candidate))} == {}


@pytest.mark.parametrize(
    ("name", "decoder"),
    [
        ("resnet10t", "upernet"), ("resnet10t", "linear"), ("vit_tiny_patch16_224", "upernet"), ("vit_tiny_patch16_224", "dpt"),
        ("vit_tiny_patch16_224", "linear"),
    ],
)
def test_other_decoders_train_and_give_logits_of_any_size(name: str, decoder: str) -> None:
    torch.manual_seed(0)
    network = models.build(f"timm:{name}", None, 3, 4, decoder=decoder)
    image = torch.randn(2, 3, 65, 97)
    with torch.no_grad():
        assert network.eval()(image).shape == (2, 4, 65, 97)
    output = network.train()(image)
    assert bool(output.auxiliary) == (decoder == "upernet")
    losses = [logits.square().mean() * weight for logits, weight in ((output.logits, 1.0), *output.auxiliary)]
    sum(losses).backward()
    assert [key for key, one in network.named_parameters() if one.grad is None] == []
    assert network.get_submodule(registry.spec(f"timm:{name}").cam_layer) is not None
    assert {key.rsplit(".", 1)[0] for key in network.head_weights} >= {"classify"} or decoder in ("upernet", "linear")


def test_traits_are_read_from_timm() -> None:
    dino, swin, resnet = (
        encoder_traits(name) for name in ("vit_small_patch14_dinov2.lvd142m", "swin_tiny_patch4_window7_224", "resnet18")
    )
    assert (dino.divisor, dino.blocks, dino.strides) == (14, (2, 5, 8, 11), (14,) * 4)
    assert swin.channels_last and not resnet.channels_last and not dino.channels_last
    assert resnet.strides == (2, 4, 8, 16, 32) and resnet.stem == ("conv1.weight",) and resnet.has_drop_path
    assert encoder_traits("coatnet_nano_rw_224").needs_size and not swin.needs_size and not dino.needs_size
    (weights,) = registry.spec("timm:vit_pe_spatial_tiny_patch16_512.fb").weights
    assert (weights.repository, weights.licence, weights.mean) == (
        "timm/vit_pe_spatial_tiny_patch16_512.fb", "Apache-2.0", (0.5, 0.5, 0.5),
    )  # fmt: skip
    (weights,) = registry.spec("timm:vit_small_patch16_dinov3.lvd1689m").weights
    assert weights.licence == "DINOv3 licence" and weights.commercial
    assert registry.spec("timm:resnet18").transfer == LIKE_ANY_OTHER
    assert registry.spec("timm:vit_small_patch14_dinov2.lvd142m").transfer.layer_decay == 0.8
    families = {name: registry.spec(f"timm:{name}").family for name in ("resnet18", "sam2_hiera_tiny", "vit_tiny_patch16_224")}
    assert families == {"resnet18": "generalist", "sam2_hiera_tiny": "foundation", "vit_tiny_patch16_224": "generalist"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet99", "did you mean timm:resnet"),
        ("resnet18.imagenet", "known: .*a1_in1k"),
        ("hf_hub:someone/model", "has no encoder"),
        ("hf-hub:someone/model", "has no encoder"),
        ("../resnet18", "has no encoder"),
        ("", "has no encoder"),
        ("convmixer_768_32", "no feature maps of it"),
        ("mixer_b16_224", "no feature maps of it"),
    ],
)
def test_what_cannot_be_an_encoder_is_refused_with_the_reason(name: str, message: str) -> None:
    with pytest.raises(AutosegError) as caught:
        MODELS.get(f"timm:{name}")
    assert re.search(message, f"{caught.value.problem} -> {caught.value.remedy}")


def test_names_without_the_prefix_hint_at_it() -> None:
    with pytest.raises(AutosegError, match="timm:NAME"):
        MODELS.get("resnet18")
    assert "timm:resnet18" in MODELS and not [name for name in MODELS.names() if name.startswith("timm:")]


def test_options_that_do_not_fit_are_named() -> None:
    for options, message in (
        ({"decoder": "dpt"}, "plain transformers"), ({"decoder": "fpn"}, "choose light, upernet, dpt, linear"),
        ({"drop_path": 1.5}, "probability"), ({"drop_path": 0.1}, "stochastic depth"), ({"depth": 3}, "its options: decoder"),
    ):  # fmt: skip
        with pytest.raises(AutosegError) as caught:
            models.build("timm:vgg11", **options)
        assert message in f"{caught.value.problem} {caught.value.remedy}"


def test_the_light_preset_is_the_same_network_bit_for_bit() -> None:
    networks = []
    for name in ("efficientnet_lite0_upernet", "timm:tf_efficientnet_lite0"):
        torch.manual_seed(0)
        networks.append(models.build(name, in_channels=3, num_classes=3).eval())
    one, other = networks
    assert list(one.state_dict()) == list(other.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    image = torch.randn(1, 3, 70, 101)
    with torch.no_grad():
        assert torch.equal(one(image), other(image))


def save_timm(name: str, path: Path, rename=lambda key: key) -> dict[str, Tensor]:
    torch.manual_seed(1)
    tensors = {rename(key): one.contiguous() for key, one in timm.create_model(name).state_dict().items()}
    save_file(tensors, path)
    return tensors


def test_a_file_of_another_image_size_is_resampled_as_timm_does(tmp_path: Path) -> None:
    """Position biases of CoAtNet and position embeddings belong to an image size."""
    tensors = save_timm("coatnet_nano_rw_224", tmp_path / "c.safetensors")
    network = models.build("timm:coatnet_nano_rw_224", None, 3, 2, (96, 160))
    report = load_file(network, tmp_path / "c.safetensors")
    assert not [key for key in report.missing if key.startswith("encoder.")]
    assert torch.equal(network.state_dict()["encoder.stem.conv1.weight"], tensors["stem.conv1.weight"])


def test_the_official_names_of_dinov2_are_known(tmp_path: Path) -> None:
    """Meta's own file has a mask token besides, which timm drops."""
    name = "vit_small_patch14_dinov2"
    tensors = timm.create_model(name).state_dict()
    tensors["mask_token"] = torch.zeros(1, 384)
    save_file({key: one.contiguous() for key, one in tensors.items()}, tmp_path / "dinov2_vits14_pretrain.safetensors")
    network = models.build(f"timm:{name}")
    report = load_file(network, tmp_path / "dinov2_vits14_pretrain.safetensors")
    assert not [key for key in report.missing if key.startswith("encoder.")]
    assert torch.equal(network.state_dict()["encoder.model.pos_embed"], tensors["pos_embed"])


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    save_timm("resnet10t", tmp_path / "r.safetensors")
    network: SegmentationNetwork = models.build("timm:vit_tiny_patch16_224")
    before = {key: one.clone() for key, one in network.state_dict().items()}
    with pytest.raises(AutosegError, match="do not fit"):
        load_file(network, tmp_path / "r.safetensors")
    assert all(torch.equal(one, before[key]) for key, one in network.state_dict().items())


def test_a_gray_image_gets_the_mean_of_the_first_layer(tmp_path: Path) -> None:
    tensors = save_timm("vit_tiny_patch16_224", tmp_path / "v.safetensors")
    network = models.build("timm:vit_tiny_patch16_224", in_channels=1)
    load_published(network, tensors)
    ours = network.state_dict()["encoder.model.patch_embed.proj.weight"]
    torch.testing.assert_close(ours, tensors["patch_embed.proj.weight"].sum(dim=1, keepdim=True))


def test_a_model_that_pads_sees_zeros_and_one_of_a_fixed_size_a_resized_image() -> None:
    fixed = models.build("timm:coatnet_pico_rw_224", None, 3, 2, (64, 96))
    assert fixed.fixed_size == (64, 96)
    plain = models.build("timm:eva02_tiny_patch14_224")
    assert plain.divisor == 14 and plain.fixed_size is None
    assert plain._to_valid_size(torch.ones(1, 3, 29, 28)).shape[-2:] == (42, 28)
