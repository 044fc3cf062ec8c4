"""Export a trained network to ONNX, with a description of pre- and post-processing, and check it against torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import autoseg
from autoseg.inference.activation import probabilities
from autoseg.inference.tiles import TileGrid
from autoseg.io import Image
from autoseg.models import registry
from autoseg.preprocessing.normalise import normalise
from autoseg.preprocessing.transform import preprocess_image
from autoseg.schema import serde
from autoseg.schema.onnx import OnnxClass, OnnxDescription, OnnxTensor
from autoseg.support.errors import AutosegError
from autoseg.support.files import atomic_write, write_artefact
from autoseg.training.checkpoint import Trained

OPSET = 18
# Largest accepted difference of probabilities. Both compute in float32, in another order.
_TOLERANCE = 1e-3
# Larger graphs are not simplified here: that takes minutes for TransNeXt. The runtime simplifies them.
_MAX_NODES = 10_000


@dataclass(frozen=True)
class OnnxFile:
    """The file and its check. difference: largest one of probabilities. agreement: fraction of pixels of the same class."""

    path: Path
    images: int
    difference: float
    agreement: float

    def __str__(self) -> str:
        size = self.path.stat().st_size / 1e6
        checked = f"on {self.images} images probabilities differ by at most {self.difference:.1e} from torch's"
        return f"{self.path} ({size:.1f} MB): {checked}, {self.agreement:.3%} of pixels have the same class"


def export_onnx(member: Trained, path: Path, images: Sequence[Image]) -> OnnxFile:
    """`write_onnx`, and the description within the file also as `<path>.json`."""
    checked = write_onnx(member, path, images)
    write_artefact(path.with_suffix(".onnx.json"), description(member))
    return checked


def write_onnx(member: Trained, path: Path, images: Sequence[Image]) -> OnnxFile:
    """Write the network (1, C, H, W) -> logits (1, K, H, W) at its plan's input size, with `description` in its metadata.

    images: of the training set, to check the file. Raises AutosegError, and leaves no file, if the model's spec excludes
    ONNX, an extra is missing, or the outputs differ from torch's.
    """
    _check_possible(member)
    network = member.network.cpu().float().eval()
    channels = member.preprocessing.channels
    example = torch.zeros(1, channels, *member.model_plan.input_size)
    with atomic_write(path) as temporary:
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            optimize=False,
            input_names=["image"],
            output_names=["logits"],
        )
        assert program is not None
        if len(program.model.graph) <= _MAX_NODES:
            program.optimize()
        program.save(str(temporary), external_data=False)
        _embed_description(temporary, description(member))
        return _check_outputs(member, temporary, path, [_network_input(member, image) for image in images])


def description(member: Trained) -> OnnxDescription:
    """Pre- and post-processing in words and numbers, as embedded in the file."""
    plan, preprocessing, scheme = member.model_plan, member.preprocessing, member.scheme
    resize = {
        "resize": f"resize to {preprocessing.size} (height, width): area average where it shrinks, bilinear where it grows",
        "patch": "cut into overlapping tiles of the input's size, blend the probabilities with Gaussian weights; "
        "before that scale by `scale`, or resample to `spacing` mm where it is given",
    }[preprocessing.geometry]
    if preprocessing.pad:
        resize = f"keep the aspect: {resize.replace('resize to', 'resize to fit into', 1)}; centre it in zeros of that size"
    return OnnxDescription(
        producer=f"autoseg {autoseg.__version__}",
        dataset=member.record.dataset,
        model=f"{plan.model} {plan.variant}, fold {member.record.fold}",
        input=OnnxTensor("image", "batch, channel, row, column", (1, preprocessing.channels, *plan.input_size)),
        channels=tuple(member.spec.channel_names.values()),
        before=(
            "colours in the order RGB; a gray image for three channels is repeated",
            resize,
            f"values as stored ({preprocessing.dtype}), not scaled to 0..1",
            "normalise each channel: (clip(x, lower, upper) - mean) / std, with the numbers of `normalisation`; the scheme "
            '"image" takes mean and std of the image itself',
        ),
        geometry=preprocessing.geometry,
        size=preprocessing.size,
        scale=preprocessing.scale,
        spacing=preprocessing.spacing,
        normalisation=plan.normalisation,
        output=OnnxTensor("logits", "batch, class, row, column"),
        after=(
            _activation_words(member),
            *_views_words(member),
            ("cut off what was padded, then " if preprocessing.pad else "")
            + "resize the probabilities to the image's size, bilinear with pixel centres at halves",
            "each region above one half paints its value, later ones over earlier ones"
            if scheme.regions
            else "the most probable class's value",
        ),
        classes=tuple(OnnxClass(*pair) for pair in zip(scheme.names, scheme.members, strict=True)),
        paint=scheme.paint,
    )


def _check_possible(member: Trained) -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise AutosegError(f"ONNX needs {', '.join(missing)}", 'pip install "autoseg[onnx]"')
    reason = registry.spec(member.record.model).no_onnx
    if reason:
        raise AutosegError(
            f"{member.record.model} cannot be exported to ONNX: {reason}", "export the bundle without --onnx and --runtime"
        )


def _embed_description(path: Path, details: OnnxDescription) -> None:
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"autoseg": serde.to_json(details)})
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _network_input(member: Trained, image: Image) -> Tensor:
    """The network's input (1, C, h, w) for an image: the resized image, or its first tile."""
    prepared = preprocess_image(image.array, member.preprocessing, image.spacing)
    layout = TileGrid.of((prepared.shape[0], prepared.shape[1]), member.model_plan.input_size)
    tile = layout.crop(layout.pad(prepared), layout.corners[0])
    values = torch.from_numpy(np.ascontiguousarray(tile).astype(np.float32)).permute(2, 0, 1)[None]
    return normalise(values, member.model_plan.normalisation).contiguous()


def _check_outputs(member: Trained, file: Path, path: Path, inputs: Sequence[Tensor]) -> OnnxFile:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # Errors only.
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    difference, same, pixels = 0.0, 0, 0
    for values in inputs:
        with torch.no_grad():
            ours = _probabilities(member, member.network(values))
        theirs = _probabilities(member, torch.from_numpy(session.run(None, {"image": values.numpy()})[0]))
        difference = max(difference, float((ours - theirs).abs().max()))
        first, second = (maps > 0.5 if member.scheme.regions else maps.argmax(1) for maps in (ours, theirs))
        same, pixels = same + int((first == second).sum()), pixels + first.numel()
    if not difference <= _TOLERANCE:
        raise AutosegError(
            f"{path} differs from torch: probabilities by {difference:.2g}",
            "export the bundle without --onnx, and report this bug",
        )
    return OnnxFile(path, len(inputs), difference, same / pixels)


def _probabilities(member: Trained, logits: Tensor) -> Tensor:
    return probabilities(logits, member.activation, member.scheme)


def _views_words(member: Trained) -> tuple[str, ...]:
    training = member.plan.training
    if not training.tta or not training.augmentation.mirror:
        return ()
    axes = " and ".join({0: "rows", 1: "columns"}[axis] for axis in training.augmentation.mirror)
    return (f"mean of the probabilities over the views mirrored along {axes}, each mirrored back; one view is a little worse",)


def _activation_words(member: Trained) -> str:
    if member.activation == "softmax":
        return "softmax over the classes"
    return "sigmoid for each region" if member.scheme.regions else "sigmoid for each class, divided by their sum"
