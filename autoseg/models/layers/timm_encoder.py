"""Encoders of timm as feature pyramids: what there is to know of one, how it is built, and its official names.

Everything is read from timm and from the network itself on the meta device: nothing is downloaded.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import timm
import torch
from timm.models import PretrainedCfg, get_pretrained_cfg, group_parameters
from torch import Tensor, nn

from autoseg.models.base import StateDictAdapter
from autoseg.models.fake_tensors import fake_tensors
from autoseg.support.errors import AutosegError

_NAME = re.compile(r"[a-z0-9][\w\-]*(\.[\w\-]+)?", re.ASCII | re.IGNORECASE)
_LEVELS = 4
# Sides of the probe, in units of the coarsest stride.
_PROBE = (3, 5)
# Computed from the image's size: files of older versions of timm hold them.
_COMPUTED = re.compile(r".*(relative_position_index|attn_mask|relative_coords_table)")
_OTHER = "choose another encoder: timm.list_models('*NAME*') lists their names"


@dataclass(frozen=True, kw_only=True)
class EncoderTraits:
    """name: timm's, with the tag of its weights if it was given. channels, strides: of each map, as the encoder gives them.

    arguments: of `timm.create_model`, for images of any size. takes_size: it can be built for a size (`img_size`), at which it
    then resamples nothing. needs_size: it works at that size only; only_square: with equal sides. blocks: of a plain
    transformer, whose maps are taken; empty for networks with several strides. channels_last: its maps are (B, h, w, C). stem:
    names of the weights whose second axis is the input channels. unused: parameters that no map depends on. has_drop_path: it
    knows stochastic depth. own_size: (H, W) of its pretraining.
    """

    name: str
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    arguments: Mapping[str, Any]
    takes_size: bool
    needs_size: bool
    only_square: bool
    blocks: tuple[int, ...]
    channels_last: bool
    stem: tuple[str, ...]
    unused: tuple[str, ...]
    has_drop_path: bool
    own_size: tuple[int, int]

    @property
    def divisor(self) -> int:
        """Height and width of the input must be multiples of it."""
        return max(self.strides)

    def built_size(self, size: tuple[int, int] | None) -> tuple[int, int]:
        """(H, W) to build the encoder for, if inputs have this size; None: that of its pretraining."""
        height, width = (side + -side % self.divisor for side in size or self.own_size)
        return (max(height, width),) * 2 if self.only_square else (height, width)


class PlainEncoder(nn.Module):
    """A plain transformer of timm: image (B, C, H, W) -> the maps (B, C, h, w) of some of its blocks.

    The last norm is applied to every map, as in DINOv2's own `get_intermediate_layers`: their scales differ by far without it.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        prune = model.prune_intermediate_layers
        self.blocks = list(prune(list(blocks), prune_norm=False, prune_head=True))  # type: ignore[operator]

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.model.forward_intermediates(  # type: ignore[no-any-return, operator]
            x, indices=self.blocks, norm=True, output_fmt="NCHW", intermediates_only=True
        )


def check_name(name: str) -> None:
    """Raises AutosegError, with similar names, if timm has no such network. Names that timm would look for elsewhere (a hub, a
    folder) are none."""
    architecture, _, tag = name.partition(".")
    if _NAME.fullmatch(name) and timm.is_model(architecture):
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
        if not tag or tag in tags:
            return
        known = f"known: {', '.join(tags)}" if tags else "it has no published weights: leave out the tag"
        raise AutosegError(f"timm {timm.__version__} has no weights {tag!r} of {architecture}", known)
    near = difflib.get_close_matches(architecture, timm.list_models(), n=4, cutoff=0.6)
    hint = f"did you mean {' or '.join(f'timm:{one}' for one in near)}?" if near else "timm.list_models() lists the names"
    raise AutosegError(f"timm {timm.__version__} has no encoder {name!r}", hint)


def pretrained_config(name: str) -> PretrainedCfg:
    """What timm knows of the weights of a network."""
    return get_pretrained_cfg(name) or PretrainedCfg()


@lru_cache(maxsize=256)
def encoder_traits(name: str) -> EncoderTraits:
    """The traits of a timm encoder. Raises AutosegError if there is none, or if timm gives no feature maps of it."""
    check_name(name)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        try:
            return _measure(name)
        except Exception as error:  # Code of another package may raise anything.
            if isinstance(error, AutosegError):
                raise
            lines = str(error).strip().splitlines()
            reason = f"{type(error).__name__}: {lines[0] if lines else 'without a message'}"
            problem = f"timm:{name} cannot be an encoder: timm gives no feature maps of it ({reason})"
            raise AutosegError(problem, _OTHER) from error


def build_encoder(traits: EncoderTraits, in_channels: int, size: tuple[int, int], drop_path: float = 0.0) -> nn.Module:
    """The encoder with random weights: image (B, C, H, W) -> list of maps, as timm gives them. size: `built_size`."""
    arguments = {**traits.arguments, **_size_argument(traits, size)}
    if drop_path:
        if not traits.has_drop_path:
            raise ValueError(f"timm:{traits.name} has no stochastic depth")
        arguments["drop_path_rate"] = drop_path
    return _create(traits.name, in_channels, traits.blocks, arguments)


def channels_first(maps: Sequence[Tensor], traits: EncoderTraits) -> list[Tensor]:
    """The encoder's maps as (B, C, h, w)."""
    return [one.movedim(-1, 1).contiguous() for one in maps] if traits.channels_last else list(maps)


def to_timm_names(
    tensors: Mapping[str, Tensor], traits: EncoderTraits, size: tuple[int, int], encoder: nn.Module
) -> Mapping[str, Tensor]:
    """Tensors under other names or of another image size, by timm's own conversion. What has timm's names and shapes, and what
    timm cannot convert, is returned as it is."""
    network, ours = _whole(traits.name, size if traits.takes_size else None), encoder.state_dict()
    whole = {key: tensor.shape for key, tensor in network.state_dict().items()}
    fits = all(key in tensors and tensors[key].shape == shape for key, shape in whole.items() if _our_name(key, ours))
    if fits and all(key in whole or _COMPUTED.fullmatch(key) for key in tensors):
        return tensors
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return tensors
    try:
        converted: Mapping[str, Tensor] = convert(dict(tensors), network)
    except Exception:  # It expects files of this network, and meets others too.
        return tensors
    return converted


def load_encoder(adapter: StateDictAdapter, traits: EncoderTraits, size: tuple[int, int], encoder: nn.Module) -> None:
    """Assign each of timm's tensors to our `encoder`, or drop it if the maps do not depend on it."""
    whole, ours = _whole(traits.name, size if traits.takes_size else None).state_dict(), encoder.state_dict()
    for official in adapter.remaining:
        name = _our_name(official, ours)
        if name:
            adapter.assign(f"encoder.{name}", official)
        elif official in whole:
            adapter.drop(official, "belongs to the classifier, or lies behind the last map")
        elif _COMPUTED.fullmatch(official):
            adapter.drop(official, "computed from the size of the image")


def layer_numbers(encoder: nn.Module) -> dict[str, int]:
    """Parameter -> number of its layer, counted from the image, by timm's own grouping. Empty if timm has none."""
    network: Any = encoder.model if isinstance(encoder, PlainEncoder) else encoder
    prefix = "model." if network is not encoder else ""
    if not hasattr(network, "group_matcher"):
        return {}
    numbers = group_parameters(network, network.group_matcher(coarse=False), reverse=True)
    return {f"{prefix}{name}": number for name, number in numbers.items()}


def _measure(name: str) -> EncoderTraits:
    whole: Any = _on_this_device(lambda: timm.create_model(name))
    known = _constructor_parameters(type(whole))
    arguments: dict[str, Any] = {}
    if "dynamic_img_size" in known:
        arguments["dynamic_img_size"] = True
    if "strict_img_size" in known:
        arguments["strict_img_size"] = False
    encoder: Any = _create(name, 3, (), arguments)
    strides = tuple(encoder.feature_info.reduction())
    blocks: tuple[int, ...] = ()
    if len(set(strides)) == 1 and hasattr(whole, "forward_intermediates"):
        blocks = _blocks(name, len(whole.feature_info))
        encoder = _create(name, 3, blocks, arguments)
        strides = strides[-1:] * _LEVELS
    side, (_, height, width) = max(strides), pretrained_config(name).input_size
    size = (_PROBE[0] * side, _PROBE[1] * side)
    needs_size = only_square = False
    try:
        shapes, unused = _try(encoder, size)
    except Exception:  # The size is not the one it was built for: there are as many kinds of errors as networks.
        if "img_size" not in known:
            raise
        needs_size = True
        try:
            encoder = _create(name, 3, blocks, {**arguments, "img_size": size})
        except TypeError:  # It knows one side only.
            only_square, size = True, (max(size), max(size))
            encoder = _create(name, 3, blocks, {**arguments, "img_size": size[0]})
        shapes, unused = _try(encoder, size)
    channels, channels_last = _layout(name, shapes, strides, size)
    return EncoderTraits(
        name=name,
        channels=channels,
        strides=strides,
        arguments=arguments,
        takes_size=needs_size or {"img_size", "dynamic_img_size"} <= known,
        needs_size=needs_size,
        only_square=only_square,
        blocks=blocks,
        channels_last=channels_last,
        stem=_stem(name, encoder),
        unused=unused,
        has_drop_path="drop_path_rate" in known,
        own_size=(height, width),
    )


def _blocks(name: str, depth: int) -> tuple[int, ...]:
    """The ends of the four quarters: blocks 2, 5, 8 and 11 of 12, as in MedDINOv3, Dino U-Net and DPT."""
    if depth < _LEVELS:
        raise AutosegError(f"timm:{name} cannot be an encoder: it has {depth} blocks, fewer than the {_LEVELS} maps", _OTHER)
    return tuple(depth * number // _LEVELS - 1 for number in range(1, _LEVELS + 1))


def _constructor_parameters(kind: type[nn.Module]) -> set[str]:
    """Names of a class's parameters, with those that it passes on to its bases."""
    names: set[str] = set()
    for one in kind.__mro__:
        parameters = inspect.signature(one.__init__).parameters.values()  # type: ignore[misc]
        names |= {parameter.name for parameter in parameters}
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            break
    return names


def _size_argument(traits: EncoderTraits, size: tuple[int, int]) -> dict[str, Any]:
    if not traits.takes_size:
        return {}
    return {"img_size": size[0] if traits.only_square else size}


def _create(name: str, in_channels: int, blocks: Sequence[int], arguments: Mapping[str, Any]) -> nn.Module:
    def make() -> nn.Module:
        if blocks:
            network = timm.create_model(name, pretrained=False, in_chans=in_channels, num_classes=0, **arguments)
            return PlainEncoder(network, blocks)
        pyramid: nn.Module = timm.create_model(name, pretrained=False, features_only=True, in_chans=in_channels, **arguments)
        return pyramid

    return _on_this_device(make)


def _on_this_device(make: Callable[[], nn.Module]) -> nn.Module:
    """A network on PyTorch's default device. On the meta device some constructors fail, because they compute their widths with
    tensors: those networks are made on the processor and lose their values."""
    # Not torch.get_default_device(): PyTorch 2.7's does not know `with torch.device(...)`.
    if torch.empty(0).device.type != "meta":
        return make()
    try:
        return make()
    except (NotImplementedError, RuntimeError):
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            return make().to("meta")


def _layout(
    name: str, shapes: Sequence[tuple[int, ...]], strides: Sequence[int], size: tuple[int, int]
) -> tuple[tuple[int, ...], bool]:
    """Channels of each map, and whether the maps are (B, h, w, C). timm's numbers leave out a neck, which SAM's encoder has.

    Raises AutosegError if they are neither that nor (B, C, h, w).
    """
    sizes = [tuple(-(-side // stride) for side in size) for stride in strides]
    if [shape[1:] for shape in shapes] == sizes:
        return tuple(shape[0] for shape in shapes), False
    if [shape[:2] for shape in shapes] == sizes:
        return tuple(shape[2] for shape in shapes), True
    raise AutosegError(
        f"timm:{name} cannot be an encoder: for an image of {size[0]} x {size[1]} pixels its maps have the sizes {shapes}, "
        f"which do not fit the strides that timm announces, {tuple(strides)}",
        _OTHER,
    )


def _stem(name: str, encoder: nn.Module) -> tuple[str, ...]:
    first = pretrained_config(name).first_conv or ()
    firsts, ours = (first,) if isinstance(first, str) else tuple(first), dict(encoder.named_parameters())
    names = (_our_name(f"{one}.weight", ours) for one in firsts)
    return tuple(name for name in names if name)


def _try(encoder: nn.Module, size: tuple[int, int]) -> tuple[list[tuple[int, ...]], tuple[str, ...]]:
    """Shapes of an encoder's maps without the batch, and the parameters that no map depends on, found without values."""
    with torch.device("cpu"), fake_tensors(encoder, "cpu"), _without_messages():
        maps = encoder(torch.zeros(2, 3, *size))
        named = {name: parameter for name, parameter in encoder.named_parameters() if parameter.requires_grad}
        gradients = torch.autograd.grad([one.sum() for one in maps], list(named.values()), allow_unused=True)
        unused = tuple(name for name, gradient in zip(named, gradients, strict=True) if gradient is None)
        return [tuple(one.shape[1:]) for one in maps], unused


@contextmanager
def _without_messages() -> Iterator[None]:
    """PyTorch logs the stack of every operation that fails on fake tensors; here a failure is an answer."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _our_name(official: str, ours: Mapping[str, Any]) -> str:
    """timm renames the modules of networks that it takes maps of: "stages.0" becomes "stages_0", or "model." comes before."""
    candidates = (official, f"model.{official}", official.replace(".", "_", 1))
    return next((name for name in candidates if name in ours), "")


@lru_cache(maxsize=4)
def _whole(name: str, size: tuple[int, int] | None) -> nn.Module:
    """The network with its classifier, as published, on the meta device. size: for encoders that need it."""
    traits = encoder_traits(name)
    arguments = {**traits.arguments, **(_size_argument(traits, size) if size else {})}
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return _on_this_device(lambda: timm.create_model(name, **arguments))
