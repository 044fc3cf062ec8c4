"""What prediction costs beyond the bare forward pass of the same network.

    python -m benchmarks.prediction --images DIR (--bundle FILE.zip | --root ROOT --dataset D --model M) [--fold 0]
        [--count 40] [--rounds 5] [--parts]

Predicts the first `count` images of a folder as `autoseg_predict` does (read, prepare, network, confidence, warnings, masks
and prediction.json written), and sends the same prepared images through the bare network: same batches, same precision,
normalised beforehand, nothing done with what comes out. Both take turns; prints the median processor time of each, threads
included, and of the rounds' ratios. Loading the network is not part of it. --parts: what each step takes by itself.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from autoseg.inference.precision import autocast, for_prediction
from autoseg.io import read_image, write_label
from autoseg.prediction import ood_detection, pipeline
from autoseg.prediction.bundle import load_bundle
from autoseg.prediction.files import predict_jobs
from autoseg.prediction.inputs import PredictionJob, find_jobs
from autoseg.prediction.pipeline import OutputOptions
from autoseg.prediction.predictor import Predictor
from autoseg.preprocessing.normalise import normalise
from autoseg.preprocessing.transform import preprocess_image


def measured(work: Callable[[], object]) -> float:
    """Seconds of processor time of all threads."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def bare(predictor: Predictor, jobs: Sequence[PredictionJob]) -> Callable[[], None]:
    """The forward passes alone. The geometry must be "resize": tiles depend on the images."""
    batches: list[tuple[torch.nn.Module, torch.Tensor, str]] = []
    for (engine, place), member in zip(predictor.engines, predictor.members, strict=True):
        assert engine.preprocessing.geometry == "resize", engine.preprocessing
        images = [predictor.prepare(read_image(job.images[0]).array).arrays[place] for job in jobs]
        for start in range(0, len(images), predictor.batch_size):
            stored = torch.from_numpy(np.stack(images[start : start + predictor.batch_size])).permute(0, 3, 1, 2).contiguous()
            seen = normalise(stored, engine.model_plan.normalisation).contiguous(memory_format=engine.memory_format)
            batches.append((member.network.eval(), seen, for_prediction(engine.model_plan.precision, predictor.device)))

    def work() -> None:
        for network, images, precision in batches:
            with torch.no_grad(), autocast(precision, predictor.device):
                network(images)

    return work


def parts(predictor: Predictor, jobs: Sequence[PredictionJob], folder: Path) -> dict[str, float]:
    """Processor seconds of each step for all images, one after the other."""
    preprocessing, metadata = predictor.preprocessing_configs[0], predictor.metadata
    images = [read_image(job.images[0]) for job in jobs]
    arrays = [preprocess_image(image.array, preprocessing) for image in images]
    prepared = [predictor.prepare(image.array) for image in images]
    size = predictor.batch_size
    results = [one for start in range(0, len(jobs), size) for one in predictor.infer(prepared[start : start + size])]
    labels = [predictor.label_map(one.maps, each.size) for one, each in zip(results, prepared, strict=True)]
    steps: dict[str, Callable[[], object]] = {
        "read": lambda: [read_image(job.images[0]) for job in jobs],
        "hash": lambda: [pipeline.content_hash(job) for job in jobs],
        "prepare": lambda: [preprocess_image(image.array, preprocessing) for image in images],
        "appearance": lambda: [
            ood_detection.measure(array, each.size, None)
            for array, each in zip(arrays, prepared, strict=True)
            if metadata.appearance
        ],
        "engine": lambda: [predictor.infer(prepared[start : start + size]) for start in range(0, len(jobs), size)],
        "label map": lambda: [predictor.label_map(one.maps, each.size) for one, each in zip(results, prepared, strict=True)],
        "confidence": lambda: [predictor.assess(*each) for each in zip(prepared, results, labels, strict=True)],
        "write": lambda: [write_label(folder / job.output, mask) for job, mask in zip(jobs, labels, strict=True)],
    }
    return {name: min(measured(step) for _ in range(3)) for name, step in steps.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prediction", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--dataset")
    parser.add_argument("--model")
    parser.add_argument("--fold", type=int, default=0, help="of a bundle: the member to keep (default: 0)")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if options.bundle is not None:
        whole = load_bundle(options.bundle, device="cpu")
        predictor = Predictor([m for m in whole.members if m.record.fold == options.fold], "cpu", metadata=whole.metadata)
    else:
        predictor = Predictor.load(options.dataset, options.model, [options.fold], device="cpu", root=options.root)
    jobs = find_jobs(options.images, predictor.channels)[: options.count]
    forward = bare(predictor, jobs)
    with tempfile.TemporaryDirectory() as folder:
        work = lambda: predict_jobs(predictor, jobs, Path(folder) / "out", OutputOptions())  # noqa: E731
        forward(), work()
        rounds = [(measured(work), measured(forward)) for _ in range(options.rounds)]
        ours, theirs = (statistics.median(each[place] for each in rounds) for place in (0, 1))
        ratio = statistics.median(first / second for first, second in rounds)
        first = predictor.members[0]
        print(f"{first.record.dataset}, {first.record.model} {first.model_plan.variant}, {len(jobs)} images")
        print(f"prediction {ours:.3f} s, bare forward {theirs:.3f} s of processor time: {ratio:.3f} times")
        if options.parts:
            for name, seconds in parts(predictor, jobs, Path(folder)).items():
                print(f"  {name:<12}{1000 * seconds / len(jobs):8.2f} ms an image")


if __name__ == "__main__":
    main()
