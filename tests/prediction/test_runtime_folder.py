"""The exported folder: its masks are autoseg_predict's, and its program needs nothing of autoseg."""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import nn

from autoseg.cli.export import main as export_command
from autoseg.io import Image, write_image
from autoseg.models import registry
from autoseg.models.registry import build
from autoseg.prediction import runtime_folder
from autoseg.prediction.files import predict_files
from autoseg.prediction.inference_metadata import InferenceMetadata
from autoseg.prediction.predictor import Predictor
from autoseg.prediction.runtime_folder import SETTINGS, export_runtime
from autoseg.prediction.standalone import run as program
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.plan import Normalisation
from autoseg.schema.prediction import PostProcessing
from autoseg.schema.runtime import RuntimeDescription
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact
from tests.prediction.stand_in import SPEC, Bright, picture, trained, write_fold

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
SIZE = (64, 96)
THREE = DatasetSpec(
    channel_names={"0": "R", "1": "G", "2": "B"}, labels={"background": 0, "a": 1, "b": 2}, numTraining=4, file_ending=".png"
)
REGIONS = DatasetSpec(
    channel_names={"0": "R", "1": "G", "2": "B"}, labels={"background": 0, "whole": (1, 2), "core": (2,)},
    regions_class_order=(1, 2), numTraining=4, file_ending=".png",
)  # fmt: skip
DEEP = DatasetSpec(channel_names={"0": "mr"}, labels={"background": 0, "bright": 1}, numTraining=4, file_ending=".png")
PAIR = DatasetSpec(channel_names={"0": "t1", "1": "t2"}, labels=THREE.labels, numTraining=4, file_ending=".png")
ALLOWED = {"numpy", "onnxruntime", "PIL", "pydicom"}
# Ends the import of everything that is neither allowed nor part of Python, nor needed by what is allowed.
BLOCKER = f"""
import sys, runpy
ALLOWED = set(sys.stdlib_module_names) | {ALLOWED!r} | {{"google", "flatbuffers", "packaging", "coloredlogs"}}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocker())
for name in ("torch", "autoseg", "cv2", "scipy"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise AssertionError(name)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Waves(nn.Module):
    """Logits with many borders, different for each seed."""

    def __init__(self, spec: DatasetSpec, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Conv2d(len(spec.channel_names), spec.label_scheme().outputs, 7, padding=3, bias=False)

    def forward(self, x):
        return 9 * self.layer(x - 0.5)


def waves(spec: DatasetSpec, seed: int = 0, size: tuple[int, int] = SIZE, **plan):
    return trained(Waves(spec, seed), seed, spec, size=size, model="unet", **plan)


def with_normalisation(member, **values):
    object.__setattr__(member.model_plan, "normalisation", Normalisation(**values))
    return member


def blobs(size: tuple[int, int], channels: int = 3, highest: int = 255, seed: int = 0) -> np.ndarray:
    """(H, W, C) of smooth spots and some noise."""
    random = np.random.default_rng(seed)
    coarse = random.random((size[0] // 9 + 2, size[1] // 9 + 2, channels)).astype(np.float32)
    smooth = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC).reshape(*size, channels)
    values = np.clip(smooth + random.normal(0, 0.03, smooth.shape), 0, 1) * highest
    return values.astype(np.uint8 if highest < 256 else np.uint16)


def pictures(folder: Path, channels: int = 3, highest: int = 255) -> Path:
    """Small, large and thin images; colours in three formats and gray, or channels in files of their own."""
    folder.mkdir(parents=True)
    for number, size in enumerate([(50, 70), (200, 150), (128, 192), (33, 300), (301, 211)]):
        values = blobs(size, channels, highest, number)
        if channels == 2:
            for channel in (0, 1):
                Pillow.fromarray(values[..., channel]).save(folder / f"p{number}_{channel:04d}.png")
            continue
        Pillow.fromarray(values.squeeze()).save(folder / f"p{number}.png")
        if channels == 3:
            Pillow.fromarray(values).save(folder / f"j{number}.jpg", quality=85)
            Pillow.fromarray(values).save(folder / f"t{number}.tif", compression="tiff_lzw")
            Pillow.fromarray(values[..., 0]).save(folder / f"gray{number}.png")
    return folder


def exported(predictor: Predictor, folder: Path):
    """The program of an exported folder, imported from there."""
    channels, dtype = predictor.channels, predictor.preprocessing_configs[0].dtype
    array = np.moveaxis(blobs((90, 77), channels, 255 if dtype == "uint8" else 65535), 2, 0)
    checked = export_runtime(predictor, folder, [Image(array=array, spacing=(0.5, 0.7))], "# Model card")
    assert checked.pixels == 90 * 77 and checked.different == 0
    return load(folder)


def load(folder: Path):
    spec = importlib.util.spec_from_file_location("exported_run", folder / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_equal(predictor: Predictor, module, images: Path, output: Path, *options: str, share: float = 1e-5) -> None:
    """The masks of autoseg and of the exported folder are the same.

    share: of the pixels, may differ: the two runtimes add float32 products in another order, and where two probabilities are
    equal but for that the class may change.
    """
    report = predict_files(predictor, images, output / "autoseg", names="keep")
    assert module.main(["-i", str(images), "-o", str(output / "runtime"), "--threads", "1", *options]) == 0
    expected, found = ({path.name for path in (output / name).iterdir()} for name in ("autoseg", "runtime"))
    assert not report.failed and expected - {"prediction.json"} == found - {"report.json"} and len(found) > 5
    different = pixels = 0
    for name in found - {"report.json"}:
        ours, theirs = (np.array(Pillow.open(output / place / name)) for place in ("autoseg", "runtime"))
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype and (ours.max() > 0 or "gray" in name)
        different, pixels = different + int((ours != theirs).sum()), pixels + ours.size
    assert different <= share * pixels, f"{different} of {pixels}"


def kinds():
    """Name -> members, post-processing."""
    cleaned = {"a": PostProcessing(0.002, fill_holes=True), "b": PostProcessing(keep_largest=True, fill_holes=True)}
    sigmoid = waves(THREE)
    object.__setattr__(sigmoid.record, "activation", "sigmoid")
    deep = with_normalisation(waves(DEEP, dtype="uint16"), scheme="image", lower=(900.0,), upper=(60_000.0,))
    half = waves(THREE)
    object.__setattr__(half.model_plan, "precision", "bf16")
    return {
        "resized": ([waves(SPEC)], {}),
        "planned for bf16": ([half], {}),
        "padded": ([waves(THREE, pad=True)], {}),
        "tiles": ([waves(THREE, geometry="patch")], {}),
        "post-processed": ([waves(THREE)], cleaned),
        "regions": ([waves(REGIONS, geometry="patch")], {"whole": PostProcessing(0.001, fill_holes=True)}),
        "sigmoids of classes": ([sigmoid], {}),
        "16 bits, its own statistics, clipped": ([deep], {}),
        "channel files": ([waves(PAIR)], {}),
        "folds and models of other geometries": (
            [waves(THREE, 0), waves(THREE, 1), waves(THREE, 2, (96, 64)), waves(THREE, 3, geometry="patch")], {},
        ),
    }  # fmt: skip


@pytest.mark.parametrize("kind", kinds())
def test_masks_equal_those_of_autoseg(kind, tmp_path):
    members, postprocessing = kinds()[kind]
    metadata = InferenceMetadata(postprocessing=postprocessing)
    module = exported(Predictor(members, metadata=metadata), tmp_path / "folder")
    deep = members[0].preprocessing.dtype == "uint16"
    images = pictures(tmp_path / "in", members[0].preprocessing.channels, 65535 if deep else 255)
    assert_equal(Predictor(members, tta=False, metadata=metadata), module, images, tmp_path / "once", "--no-tta")
    assert_equal(Predictor(members, tta=True, metadata=metadata), module, images, tmp_path / "mirrored", "--tta")


@pytest.mark.parametrize("name, variant", [
    ("unet", "16"),
    pytest.param("efficientnet_lite0_upernet", "light", marks=pytest.mark.slow),
    pytest.param("segnext", "t", marks=pytest.mark.slow),
])  # fmt: skip
def test_masks_of_real_networks_equal_those_of_autoseg(name, variant, tmp_path):
    torch.manual_seed(0)
    network = build(name, variant, in_channels=3, num_classes=3, input_size=SIZE)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
    with torch.no_grad():
        network.train()(torch.rand(4, 3, *SIZE))
    predictor = Predictor([trained(network, 0, THREE, size=SIZE, model=name)])
    module = exported(predictor, tmp_path / "folder")
    # Random weights give nearly equal probabilities everywhere.
    assert_equal(predictor, module, pictures(tmp_path / "in"), tmp_path, share=1e-4)


def test_views_are_mirrored_where_the_plan_says_so(tmp_path):
    member = waves(SPEC)
    object.__setattr__(member.plan.training, "tta", True)
    module = exported(Predictor([member]), tmp_path / "folder")
    image, model = blobs((50, 60)), module.Model(tmp_path / "folder")
    assert np.array_equal(model.predict(image), model.predict(image, mirrored=True))
    assert not np.array_equal(model.predict(image), model.predict(image, mirrored=False))


def test_a_plan_with_a_spacing_takes_it_from_the_command(tmp_path):
    predictor = Predictor([waves(SPEC, geometry="patch", spacing=(0.8, 0.6))])
    module = exported(predictor, tmp_path / "folder")
    write_image(tmp_path / "in" / "a.png", np.moveaxis(blobs((80, 120)), 2, 0))
    given = ["-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    assert module.main(given) == 1
    assert "spacing" in json.loads((tmp_path / "out" / "report.json").read_text())["failed"]["a.png"]
    assert module.main([*given, "--spacing", "0.5", "1"]) == 0
    expected = predictor(np.moveaxis(blobs((80, 120)), 2, 0), (0.5, 1.0))
    assert np.array_equal(np.array(Pillow.open(tmp_path / "out" / "a.png")), expected)
    assert "need each image's spacing" in (tmp_path / "folder" / "README.md").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An exported folder and its predictor."""
    place = tmp_path_factory.mktemp("exported") / "folder"
    predictor = Predictor([trained(Bright(), size=(64, 64), model="unet")])
    exported(predictor, place)
    return place, predictor


def test_the_program_runs_where_torch_cannot_be_imported(folder, tmp_path):
    place, predictor = folder
    image, _ = picture()
    write_image(tmp_path / "in" / "a.png", image)
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG but not really one")
    arguments = [str(place / "run.py"), "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--visible"]
    done = subprocess.run([sys.executable, "-I", "-c", BLOCKER, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "1 masks in" in done.stdout and "broken.png cannot be read" in done.stdout and not done.stderr
    shown = Pillow.open(tmp_path / "out" / "a.png")
    assert shown.mode == "P" and shown.getpalette()[3:6] != [0, 0, 0] and np.array_equal(np.array(shown), predictor(image))


def test_the_program_imports_what_it_says_and_is_copied_unchanged(folder):
    text = (folder[0] / "run.py").read_text()
    assert text == Path(program.__file__).read_text()
    modules = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module.partition(".")[0])
    assert modules - set(sys.stdlib_module_names) == ALLOWED
    needed = (folder[0] / "requirements.txt").read_text()
    assert all(name in needed for name in ("numpy", "onnxruntime", "Pillow", "# pydicom"))


def test_the_folder_describes_itself_and_holds_no_case(folder):
    place, _ = folder
    settings = read_artefact(place / SETTINGS, RuntimeDescription)
    assert settings.members[0].mirror == (0, 1) and settings.labels == {"background": 0, "bright": 1}
    readme = (place / "README.md").read_text()
    assert "not a medical device" in readme and "0 background, 1 bright" in readme and "{" not in readme.replace("${", "")
    assert (place / "MODEL_CARD.md").read_text() == "# Model card"
    copies = [line.split()[1:-1] for line in (place / "Dockerfile").read_text().splitlines() if line.startswith("COPY")]
    copied = [name for names in copies for name in names]
    assert all(list(place.glob(name)) for name in copied) and "run.py" in copied and "*.onnx" in copied


def test_the_triton_repository_has_the_networks_names_types_and_shapes(folder):
    models = [path for path in (folder[0] / "triton").iterdir() if path.is_dir()]
    assert [path.name for path in models] == ["Dataset501_Tiny_unet_fold_0"]
    config = (models[0] / "config.pbtxt").read_text()
    assert f'name: "{models[0].name}"' in config and "max_batch_size: 0" in config
    graph = onnx.load(models[0] / "1" / "model.onnx").graph
    for kind, tensors in (("input", graph.input), ("output", graph.output)):
        assert len(tensors) == 1 and tensors[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        dims = ", ".join(str(side.dim_value) for side in tensors[0].type.tensor_type.shape.dim)
        assert f'{kind} [\n  {{ name: "{tensors[0].name}" data_type: TYPE_FP32 dims: [ {dims} ] }}\n]' in config
    member = json.loads((folder[0] / SETTINGS).read_text())["members"][0]
    assert (member["input"], member["output"]) == (graph.input[0].name, graph.output[0].name)


def test_a_bad_image_is_named_and_the_others_go_on(folder, tmp_path, capsys):
    place, _ = folder
    source = tmp_path / "in"
    write_image(source / "good.png", picture()[0])
    Pillow.fromarray(np.zeros((9, 9, 4), np.uint8) + np.arange(4, dtype=np.uint8)).convert("CMYK").save(source / "cmyk.jpg")
    np.save(source / "x.npy", np.zeros(3))
    (source / "volume.nii.gz").write_bytes(b"x")
    (source / "empty.png").write_bytes(b"")
    large = Pillow.new("1", (8000, 5000))
    large.save(source / "large.png")
    write_image(source / "deep.png", np.full((1, 9, 9), 300, np.uint16))
    module = load(place)
    assert module.main(["-i", str(source), "-o", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr().out
    for words in (
        "1 masks in", "cmyk.jpg holds CMYK colours", "volume.nii.gz is a .nii.gz file, which is not read here: use autoseg",
        "empty.png is no PNG", "large.png is too large: 8000 x 5000 pixels", "deep.png: the image holds values 300..300",
    ):  # fmt: skip
        assert words in shown
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(report["cases"]) == {"good.png"} and len(report["failed"]) == 5
    assert report["cases"]["good.png"]["size"] == [48, 80]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"good.png", "report.json"}


def test_a_wrong_number_of_channels_is_one_message(tmp_path, capsys):
    module = exported(Predictor([waves(PAIR)]), tmp_path / "folder")
    write_image(tmp_path / "in" / "a.png", picture()[0])
    assert module.main(["-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 1
    assert "a.png: the image has 3 channels, the networks were trained for 2" in capsys.readouterr().out


def test_names_of_dicom_files_and_hidden_names_are_told_nowhere(folder, tmp_path, capsys):
    source = tmp_path / "in"
    write_image(source / "Doe^Jane.png", picture()[0])
    for name in ("Doe^Jane.dcm", "Doe^Janet.png"):
        (source / name).write_bytes(b"neither DICOM nor a picture")
    assert load(folder[0]).main(["-i", str(source), "-o", str(tmp_path / "out"), "--hide-names"]) == 1
    written = "".join(path.name for path in (tmp_path / "out").iterdir()) + (tmp_path / "out" / "report.json").read_text()
    shown = capsys.readouterr()
    assert "Jane" not in written + shown.out + shown.err and "case_" in written and "2 could not be predicted" in shown.out


def test_what_it_must_not_do_is_refused_before_it_begins(folder, tmp_path, capsys):
    module = load(folder[0])
    write_image(tmp_path / "in" / "a.png", picture()[0])
    (tmp_path / "theirs").mkdir()
    write_image(tmp_path / "theirs" / "a.png", picture()[0])
    for source, output, words in (
        ("none", "out", "does not exist, or contains no images"),
        ("in", "in", "would overwrite images"),
        ("in", "theirs", "holds a.png, which this program did not write"),
    ):
        assert module.main(["-i", str(tmp_path / source), "-o", str(tmp_path / output)]) == 2
        assert words in capsys.readouterr().err


def test_a_changed_network_is_not_used(folder, tmp_path, capsys):
    copy = tmp_path / "folder"
    copy.mkdir()
    for name in ("run.py", SETTINGS):
        (copy / name).write_bytes((folder[0] / name).read_bytes())
    (copy / "model_0.onnx").write_bytes((folder[0] / "model_0.onnx").read_bytes() + b"x")
    assert load(copy).main(["-i", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "model_0.onnx is missing, or was changed after the export" in capsys.readouterr().err


def test_a_folder_whose_masks_differ_is_not_left(folder, tmp_path, monkeypatch):
    image = [Image(array=picture()[0], spacing=None)]
    monkeypatch.setattr(runtime_folder, "_TOLERANCE", -1.0)
    with pytest.raises(AutosegError, match="differs from autoseg"):
        export_runtime(folder[1], tmp_path / "f", image, "card")
    other = next(name for name in registry.names() if registry.spec(name).no_onnx)
    with pytest.raises(AutosegError, match=f"{other} cannot be exported to ONNX"):
        export_runtime(Predictor([trained(Bright(), model=other)]), tmp_path / "f", image, "card")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_the_folder_beside_the_bundle(tmp_path, bright_is_registered, capsys):
    raw = tmp_path / "raw" / "Dataset501_Tiny"
    for number in range(2):
        image, mask = picture(high=180 + number)
        write_image(raw / "imagesTr" / f"case{number}.png", image)
        write_image(raw / "labelsTr" / f"case{number}.png", mask[None])
    labels = {"background": 0, "bright": 1}
    described = {"channel_names": SPEC.channel_names, "labels": labels, "numTraining": 2, "file_ending": ".png"}
    (raw / "dataset.json").write_text(json.dumps(described))
    write_fold(tmp_path / "results" / "Dataset501_Tiny" / "unet" / "fold_0", model="unet")
    assert export_command(["501", "unet", "-o", str(tmp_path / "t.zip"), "--onnx", "--runtime", "--root", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "t.runtime: needs NumPy, ONNX Runtime and Pillow only; on 2 images 0 of 7680 pixels differ" in shown
    assert (tmp_path / "t.runtime" / "model_0.onnx").read_bytes() == (tmp_path / "t.unet.fold_0.onnx").read_bytes()
    assert "Model card" in (tmp_path / "t.runtime" / "MODEL_CARD.md").read_text()
    assert load(tmp_path / "t.runtime").main(["-i", str(raw / "imagesTr"), "-o", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize("change", [
    lambda text: text[: len(text) // 2],
    lambda text: "[]",
    lambda text: text.replace('"members"', '"networks"'),
    lambda text: text.replace('"schema_version": 1', '"schema_version": 2'),
])  # fmt: skip
def test_a_damaged_runtime_json_is_one_message(folder, tmp_path, capsys, change):
    copy = tmp_path / "copy"
    shutil.copytree(folder[0], copy)
    (copy / "runtime.json").write_text(change((copy / "runtime.json").read_text()))
    images = pictures(tmp_path / "in")
    assert load(copy).main(["-i", str(images), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "runtime.json" in error and "export the folder again" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists() and program.VERSION == RuntimeDescription.VERSION


@pytest.mark.parametrize("words", [("--spacing", "0", "1"), ("--spacing", "nan", "1"), ("--threads", "-1")])
def test_impossible_options_are_refused(folder, tmp_path, words):
    with pytest.raises(SystemExit) as ended:
        load(folder[0]).main(["-i", str(pictures(tmp_path / "in")), "-o", str(tmp_path / "out"), *words])
    assert ended.value.code == 2


@pytest.mark.parametrize("geometry", ["resize", "patch"])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (70, 1)])
def test_the_smallest_images(geometry, size, tmp_path):
    predictor = Predictor([waves(THREE, geometry=geometry)])
    module = exported(predictor, tmp_path / "folder")
    values = blobs(size, 3, 255, 1)
    assert np.array_equal(module.Model(tmp_path / "folder").predict(values), predictor(np.moveaxis(values, 2, 0)))
