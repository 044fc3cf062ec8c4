import json
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from autoseg.cli.predict import main
from autoseg.io import read_label, write_image
from autoseg.prediction import ood_detection
from autoseg.prediction.bundle import CARD, CONTENTS, LICENCES, export_bundle, load_bundle, read_bundle
from autoseg.prediction.export import Exported
from autoseg.prediction.inference_metadata import InferenceMetadata
from autoseg.prediction.loading import load_predictor
from autoseg.prediction.predictor import Predictor
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.prediction import Calibration, PostProcessing
from autoseg.schema.run import InitialWeights
from autoseg.support.errors import AutosegError
from tests.prediction.stand_in import Bright, picture, trained

SPEC = DatasetSpec(
    channel_names={"0": "R", "1": "G", "2": "B"},
    labels={"background": 0, "bright": 1},
    numTraining=4,
    file_ending=".png",
    groups={"case_7": "Erika"},
    licence="CC0",
)


@pytest.fixture
def bundle(tmp_path, bright_is_registered):
    known = InferenceMetadata(
        ood_detection.appearance([ood_detection.measure(picture()[0].transpose(1, 2, 0), (48, 80), None)]),
        Calibration(cases=20, slope=0.5, intercept=0.4, mean_absolute_error=0.1),
        {"bright": PostProcessing(fill_holes=True)},
    )
    predictor = Predictor([trained(fold=0, spec=SPEC), trained(Bright(0.4), 1, SPEC)], metadata=known)
    export_bundle(predictor, [tmp_path / "gone", tmp_path / "gone"], tmp_path / "b.zip")
    return tmp_path / "b.zip", predictor


def test_a_bundle_predicts_what_its_networks_predicted(bundle, tmp_path):
    path, predictor = bundle
    image, _ = picture(low=90, high=140)
    loaded = load_bundle(path, device="cpu")
    assert np.array_equal(loaded(image), predictor(image)) and loaded.metadata == predictor.metadata
    assert loaded.predict_with_confidence(image).confidence == predictor.predict_with_confidence(image).confidence
    assert [member.record.fold for member in loaded.members] == [0, 1] and loaded.spec.licence == "CC0"


def test_it_names_the_weights_its_networks_started_from(tmp_path, bright_is_registered):
    """File, hash and licence: each once, although both folds started from it."""
    weights = InitialWeights(file="owner/net/model.safetensors", sha256="ab" * 32, licence="NC-1.0", trained_on="ImageNet-1k")
    members = [trained(fold=fold, spec=SPEC) for fold in (0, 1)]
    members = [replace(one, record=replace(one.record, weights=(weights,))) for one in members]
    bundle = export_bundle(Predictor(members), [tmp_path / "gone", tmp_path / "gone"], tmp_path / "b.zip")
    assert bundle.initial_weights == (weights,)
    assert read_bundle(tmp_path / "b.zip")[0].initial_weights == (weights,)
    assert load_bundle(tmp_path / "b.zip", device="cpu").members[0].record.weights == (weights,)


def test_a_bundle_carries_the_licence_of_derived_weights(tmp_path, bright_is_registered):
    weights = InitialWeights(
        file="timm/vit_small_patch16_dinov3.lvd1689m/model.safetensors", sha256="ab" * 32, licence="DINOv3 licence",
        trained_on="LVD-1689M", source="https://huggingface.co/timm/x",
    )  # fmt: skip
    member = trained()
    member = replace(member, record=replace(member.record, weights=(weights,)))
    export_bundle(Predictor([member]), [tmp_path / "gone"], tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        text = archive.read(LICENCES).decode()
    assert weights.file in text and "dinov3-license" in text and "a copy goes with networks" in text and "ab" * 32 in text
    assert load_bundle(tmp_path / "b.zip", device="cpu").members[0].record.weights == (weights,)
    shown = str(
        Exported(bundle=tmp_path / "b.zip", members=("x fold 0",), onnx=(), licences=("DINOv3 licence",))
    )
    assert "keep LICENCES.txt with every copy" in shown and "DINOv3 licence" in shown


def test_a_model_card_goes_with_the_networks(tmp_path, bright_is_registered):
    export_bundle(Predictor([trained()]), [tmp_path / "gone"], tmp_path / "b.zip", card="# Model card: x")
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        assert archive.read(CARD).decode() == "# Model card: x" and CARD == "MODEL_CARD.md"
    assert len(load_bundle(tmp_path / "b.zip", device="cpu").members) == 1
    shown = str(Exported(bundle=tmp_path / "b.zip", members=("x fold 0",), onnx=(), card=tmp_path / "b.card.html"))
    assert "b.card.html: model card, also in the bundle; read what you must state" in shown


def test_the_command_needs_nothing_else(bundle, tmp_path, monkeypatch):
    write_image(tmp_path / "in" / "a.png", picture()[0])
    monkeypatch.chdir(tmp_path)
    given = ["-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--bundle", str(bundle[0]), "--device", "cpu"]
    assert main(given) == 0 and read_label(tmp_path / "out" / "a.png").array.max() == 1
    assert main([*given, "-d", "501"]) == 2 and main(given[:4]) == 2 and main([*given[:4], "-d", "501"]) == 2


def test_no_case_and_no_patient_is_told(bundle):
    with zipfile.ZipFile(bundle[0]) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
        assert all(name.endswith((".json", ".safetensors")) for name in archive.namelist())
    assert b"Erika" not in content and b"case_7" not in content


def changed(path, out, **files):
    """The bundle with some files replaced (None: left out); bundle.json stays unless it is among them."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents.update({name.replace("__", "/"): content for name, content in files.items()})
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in contents.items():
            if content is not None:
                archive.writestr(name, content)
    return out


def with_contents(path, out, **fields):
    contents = json.loads(zipfile.ZipFile(path).read(CONTENTS)) | fields
    return changed(path, out, **{CONTENTS: json.dumps(contents).encode()})


def test_what_cannot_be_trusted_is_refused(bundle, tmp_path):
    path, _ = bundle
    name = "bright/fold_0/run.json"
    content = zipfile.ZipFile(path).read(name)
    swapped = content.replace(b'"seed": 0', b'"seed": 1')
    assert swapped != content
    for refused, words in (
        (changed(path, tmp_path / "1.zip", **{name: swapped}), "hash differs"),
        (changed(path, tmp_path / "2.zip", **{name: content + b" "}), "size differs"),
        (changed(path, tmp_path / "3.zip", **{name: None}), "fold_0/run.json is missing"),
        (changed(path, tmp_path / "4.zip", **{"../../evil.json": b"{}"}), "leads out"),
        (changed(path, tmp_path / "5.zip", **{"/etc/evil.json": b"{}"}), "leads out"),
        (changed(path, tmp_path / "6.zip", **{"..\\evil.json": b"{}"}), "leads out"),
        (with_contents(path, tmp_path / "7.zip", schema_version=99, wings=True), "newer release of autoseg"),
        (with_contents(path, tmp_path / "8.zip", wings=True), "wings"),
        (with_contents(path, tmp_path / "9.zip", artefact="plan"), "expected an artefact of the kind bundle"),
        (changed(path, tmp_path / "10.zip", **{CONTENTS: None}), "not a bundle"),
    ):
        with pytest.raises(AutosegError, match=words):
            read_bundle(refused)


def test_opening_executes_nothing(bundle, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    path, _ = bundle
    evil = pickle.dumps(Evil())
    contents = json.loads(zipfile.ZipFile(path).read(CONTENTS))
    import hashlib

    contents["files"]["bright/fold_0/weights.safetensors"] = {"sha256": hashlib.sha256(evil).hexdigest(), "size": len(evil)}
    changed_bundle = changed(
        path, tmp_path / "e.zip", **{CONTENTS: json.dumps(contents).encode(), "bright/fold_0/weights.safetensors": evil}
    )
    with pytest.raises(AutosegError, match="does not fit"):
        load_bundle(changed_bundle, device="cpu")
    assert not (tmp_path / "executed").exists()


def test_damaged_and_missing_files(bundle, tmp_path):
    path, _ = bundle
    (tmp_path / "cut.zip").write_bytes(path.read_bytes()[:-500])
    for refused, words in ((tmp_path / "cut.zip", "damaged"), (tmp_path / "none.zip", "does not exist")):
        with pytest.raises(AutosegError, match=words):
            load_bundle(refused, device="cpu")
    with pytest.raises(AutosegError, match="no networks were given"):
        load_predictor()


def test_weights_that_share_memory_are_written_too(bundle, tmp_path):
    class Shared(Bright):
        def __init__(self):
            super().__init__()
            self.again = self.level

    predictor = Predictor([trained(Shared())])
    export_bundle(predictor, [tmp_path], tmp_path / "s.zip")
    files = read_bundle(tmp_path / "s.zip")[1]
    assert len(files["bright/fold_0/weights.safetensors"]) > 0 and torch.is_tensor(predictor.members[0].network.level)
