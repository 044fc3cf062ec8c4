"""autoseg's side of the stages that are no commands. The last line printed is JSON.

python -m benchmarks.suite.ours network --root ROOT --dataset D      random weights into a results folder; for nnU-Net too
python -m benchmarks.suite.ours forward --root ROOT --dataset D      seconds of the network alone
python -m benchmarks.suite.ours compare --root ROOT --dataset D      largest difference between both sides' logits
python -m benchmarks.suite.ours loader FOLDER --side 256             seconds an image, of one core
python -m benchmarks.suite.ours step [--bare]                        seconds a training step, or of the bare one
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import torch

from autoseg.inference.engine import Engine
from autoseg.inference.precision import autocast, for_prediction
from autoseg.io import read_case
from autoseg.io.raw_dataset import RawDataset
from autoseg.models.specialist.nnunet import NNUNet
from autoseg.prediction import ood_detection
from autoseg.preprocessing.normalise import normalise
from autoseg.preprocessing.transform import preprocess_image
from autoseg.schema.plan import Plan
from autoseg.schema.run import RunRecord
from autoseg.support.files import read_artefact, write_artefact
from autoseg.support.malloc import configure_glibc_malloc
from autoseg.support.workspace import Dataset, Workspace
from autoseg.training import checkpoint
from autoseg.training.config_hash import digest
from benchmarks.loader import NNUNET, ours, store_of
from benchmarks.step import bare_step, trainer_step

MODEL = "nnunet"
# Input and logits of both programs, to check that they run the same network.
EXCHANGE = "network.pt"
_SEEN = 20


def network(dataset: Dataset, raw: RawDataset) -> dict[str, float]:
    """A results folder of a finished training with random weights, and EXCHANGE next to it."""
    plan = read_artefact(dataset.plan, Plan)
    model_plan = plan.models[MODEL]
    preprocessing = plan.preprocessing[model_plan.preprocessing]
    torch.manual_seed(0)
    built = checkpoint.build_network(model_plan, preprocessing, raw.spec.label_scheme(), dataset.plan)
    assert isinstance(built, NNUNet)
    folder = dataset.fold(MODEL, 0)
    folder.mkdir(parents=True, exist_ok=True)
    measured = []
    for case in raw.cases[:_SEEN]:
        image = read_case(case.images).array
        prepared = preprocess_image(image, preprocessing)
        measured.append(ood_detection.measure(prepared, (image.shape[1], image.shape[2]), None))
    identity = {"benchmark": "random weights"}
    record = RunRecord(
        dataset=dataset.name, model=MODEL, variant=model_plan.variant, fold=0, protocol=plan.protocol,
        identity=digest(identity), seed=0, device="cpu", precision=model_plan.precision, status="finished",
        epochs_planned=1, epochs_done=1,
        parameters=sum(p.numel() for p in built.parameters()),
    )  # fmt: skip
    checkpoint.save_best(folder, identity, built.state_dict(), 0, 0.0)
    for name, artefact in (
        (checkpoint.PLAN, plan), (checkpoint.DATASET, raw.spec), (checkpoint.RECORD, record),
        (ood_detection.FILE, ood_detection.appearance(measured)),
    ):  # fmt: skip
        write_artefact(folder / name, artefact)
    probe = torch.randn(1, preprocessing.channels, *model_plan.input_size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits = built.eval()(probe)
    inner = built.network
    convolutions = [stage[0].convs[0].conv for stage in inner.encoder.stages]
    torch.save(
        {
            "weights": inner.state_dict(),
            "features": [convolution.out_channels for convolution in convolutions],
            "input_size": list(model_plan.input_size),
            "probe": probe,
            "logits": logits,
        },
        folder / EXCHANGE,
    )
    return {"parameters": record.parameters}


def forward(dataset: Dataset, images: int, views: int, device: torch.device) -> dict[str, float]:
    """The network alone, in the batches, precision and memory format of predictions; `views` passes for each image."""
    configure_glibc_malloc(128 << 20)  # As autoseg_predict does.
    trained = checkpoint.load_network(dataset.fold(MODEL, 0), device=device)
    plan, precision = trained.model_plan, for_prediction(trained.model_plan.precision, device)
    engine = Engine(trained.network, plan, trained.preprocessing, trained.scheme, device, precision=precision)
    size = engine.batch_size
    shape = (size, trained.preprocessing.channels, *plan.input_size)
    batch = normalise(torch.randint(0, 256, shape, dtype=torch.uint8, device=device), plan.normalisation)
    batch = batch.contiguous(memory_format=engine.memory_format)

    def once(count: int) -> None:
        with torch.no_grad(), autocast(precision, device):
            trained.network(batch[:count])

    once(size)
    whole, rest = divmod(images * views, size)
    return timed(lambda: [once(size) for _ in range(whole)] + ([once(rest)] if rest else []), device)


def compare(dataset: Dataset) -> dict[str, float]:
    """Largest difference between the logits of both sides for the same input, and the largest logit.

    Raises SystemExit where they are not the same network.
    """
    exchanged = torch.load(dataset.fold(MODEL, 0) / EXCHANGE, weights_only=True)
    theirs = torch.load(dataset.fold(MODEL, 0) / f"theirs_{EXCHANGE}", weights_only=True)
    difference, largest = float((exchanged["logits"] - theirs).abs().max()), float(theirs.abs().max())
    if difference > 1e-3 * largest:
        raise SystemExit(f"the networks differ: {difference} of {largest}")
    return {"difference": difference, "largest": largest}


def loader(folder: Path, side: int, seconds: float) -> dict[str, float]:
    """nnU-Net's probabilities and ranges, so that both do the same work."""
    with tempfile.TemporaryDirectory() as place:
        rate = ours(store_of(folder, Path(place) / "store", side), side, NNUNET)
        rate(seconds / 4)
        each = 1 / rate(seconds)
    return {"cpu": each, "wall": each}


def timed(work: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Seconds of processor time and wall-clock time, after the device has finished."""
    began, clock = time.process_time(), time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return {"cpu": time.process_time() - began, "wall": time.perf_counter() - clock}


def step(options: argparse.Namespace, device: torch.device) -> dict[str, float]:
    if device.type == "cpu":
        configure_glibc_malloc(limit=None)  # As autoseg_train does; and so do the bare steps.
    make = bare_step if options.bare else trainer_step
    work = make(MODEL, "small", options.side, options.batch, options.precision, device)
    work()
    taken = [timed(work, device) for _ in range(options.rounds)]
    return {name: statistics.median(one[name] for one in taken) for name in ("cpu", "wall")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("network", "forward", "compare", "loader", "step"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--dataset")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    device = torch.device(options.device)
    dataset = Workspace.at(options.root).dataset(options.dataset) if options.dataset else None
    if options.task == "loader":
        torch.set_num_threads(1)
        result = loader(options.folder, options.side, options.seconds)
    elif options.task == "step":
        result = step(options, device)
    else:
        assert dataset is not None
        result = (
            network(dataset, RawDataset.open(dataset)) if options.task == "network"
            else compare(dataset) if options.task == "compare"
            else forward(dataset, options.images, options.views, device)
        )  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
