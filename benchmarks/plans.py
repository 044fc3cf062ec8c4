"""The plans that are made for real and generated sets, as a page of Markdown.

    python -m benchmarks.plans --data DIR [--output documentation/plans.md] [--memory 8G] [--device cpu] [--models A,B]

DIR holds one folder per real set, each with images/ and masks/ of the same names; a set that is missing is left out and
named. Generated are: CT-like (NIfTI in Hounsfield units), MR-like (NIfTI of unlike spacings and scales), five channels.
Nothing is trained. Prints how many seconds of processor time the planning of all models took for each set.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from autoseg import api
from autoseg.io import Image, write_image, write_label
from autoseg.io.raw_dataset import read_description, write_description
from autoseg.models import registry
from autoseg.planning.explain import explain
from autoseg.planning.planner import make_plan
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.plan import Plan, Protocol
from autoseg.support.log import configure_logging
from autoseg.support.workspace import Workspace
from benchmarks.end_to_end import SPECIFICATIONS, bring_in

CASES = 24
MEMORIES = ("4G", "8G", "24G", "80G")
# What one case has: channels (C, H, W), mask (H, W), spacing (row, column) in mm or None.
Drawn = tuple[NDArray[np.generic], NDArray[np.uint8], tuple[float, float] | None]


def tissue(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """Blotches of deviation 1, different in each picture, so that two pictures are no copies of each other."""
    return cv2.resize(rng.normal(size=(12, 12)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)


def draw_ct(index: int) -> Drawn:
    """A body in air with an organ and a small lesion in it, in Hounsfield units."""
    rng, side = np.random.default_rng((1, index)), 256
    values = np.full((side, side), -1000.0, np.float32)
    label = np.zeros((side, side), np.uint8)
    body, organ = np.zeros_like(label), (int(rng.integers(80, 110)), int(rng.integers(105, 140)))
    cv2.ellipse(body, (128, 128), (int(rng.integers(90, 120)), int(rng.integers(65, 95))), 0, 0, 360, 1, -1)
    cv2.ellipse(label, organ, (int(rng.integers(32, 45)), int(rng.integers(25, 35))), 0, 0, 360, 1, -1)
    lesion = (organ[0] + int(rng.integers(-15, 16)), organ[1] + int(rng.integers(-10, 11)))
    cv2.circle(label, lesion, int(rng.integers(5, 12)), 2, -1)
    values[body == 1] = (40 + 40 * tissue(rng, side))[body == 1]
    values[label == 1], values[label == 2] = 110.0, 60.0
    return (values + rng.normal(0, 12, values.shape).astype(np.float32))[None], label, (0.8, 0.8)


def draw_mr(index: int) -> Drawn:
    """A ring in tissue, at another scale of values and another spacing in each picture, fields of view alike."""
    rng = np.random.default_rng((2, index))
    side = int(rng.choice((192, 256, 320)))
    label, centre = np.zeros((side, side), np.uint8), (side // 2, side // 2)
    cv2.circle(label, centre, side // int(rng.integers(5, 8)), 1, -1)
    cv2.circle(label, centre, side // int(rng.integers(9, 12)), 2, -1)
    values = (np.array([300, 500, 1100], np.float32)[label] + 120 * tissue(rng, side)) * rng.uniform(0.4, 3.0)
    noisy = values + rng.normal(0, 30, label.shape)
    return noisy.clip(0, 65535).astype(np.uint16)[None], label, (360 / side, 360 / side)


def draw_five(index: int) -> Drawn:
    """Five channels of 16 bit in which round things differ in brightness."""
    rng = np.random.default_rng((3, index))
    label = np.zeros((300, 400), np.uint8)
    for value in (1, 2):
        cv2.circle(label, (int(rng.integers(60, 340)), int(rng.integers(60, 240))), int(rng.integers(20, 50)), value, -1)
    levels = np.array([[900, 2500, 400], [800, 900, 3000], [1200, 1300, 1100], [700, 2000, 2100], [1500, 500, 1400]])
    noisy = levels[:, label] + rng.normal(0, 80, (5, *label.shape))
    return noisy.clip(0, 65535).astype(np.uint16), label, None


GENERATED: dict[str, tuple[Callable[[int], Drawn], tuple[str, ...], tuple[str, ...], str]] = {
    "GeneratedCT": (draw_ct, ("image",), ("organ", "lesion"), ".nii.gz"),
    "GeneratedMR": (draw_mr, ("image",), ("wall", "cavity"), ".nii.gz"),
    "GeneratedFive": (draw_five, ("ch1", "ch2", "ch3", "ch4", "ch5"), ("first", "second"), ".tif"),
}


def generate(name: str, root: Path) -> str:
    """Full name of a generated set, drawn unless it is there."""
    workspace = Workspace.at(root)
    for known in workspace.datasets():
        if known.short_name == name:
            return known.name
    draw, channels, classes, ending = GENERATED[name]
    dataset = workspace.new_dataset(901 + list(GENERATED).index(name), name)
    for index in range(CASES):
        pixels, label, spacing = draw(index)
        for channel, plane in enumerate(pixels):
            path = dataset.raw / "imagesTr" / f"case{index:03d}_{channel:04d}{ending}"
            write_image(path, plane[None], Image(array=plane[None], spacing=spacing))
        like = Image(array=pixels[:1], spacing=spacing) if spacing else None
        write_label(dataset.raw / "labelsTr" / f"case{index:03d}{ending}", label, like)
    labels: dict[str, int | tuple[int, ...]] = {"background": 0, **{label: k + 1 for k, label in enumerate(classes)}}
    named = {str(k): channel for k, channel in enumerate(channels)}
    write_description(
        dataset.description, DatasetSpec(channel_names=named, labels=labels, numTraining=CASES, file_ending=ending)
    )
    return dataset.name


def make(dataset: str, protocol: Protocol, memory: str, device: str, options: argparse.Namespace) -> Plan:
    """A plan without a time limit, so that it is the same on every machine."""
    models = options.models.split(",") if options.models else registry.names()
    fingerprint = api.fingerprint(dataset, root=options.root)
    begun = time.process_time()
    spec = read_description(Workspace.at(options.root).dataset(dataset).description)
    plan = make_plan(fingerprint, spec, protocol, models, memory, device)
    print(f"{dataset}, {protocol}, {memory}, {device}: {time.process_time() - begun:.1f} s of processor time", file=sys.stderr)
    return plan


def of_dataset(plan: Plan) -> list[str]:
    """What was decided for a set and for all of its models together."""
    lines = ["| decision | value | reason | from the fingerprint |", "|---|---|---|---|"]
    lines += [
        f"| {decision.subject} | {decision.value} | {decision.reason} | {decision.source} |"
        for decision in explain(plan) if not decision.subject.startswith("models.")
    ]  # fmt: skip
    return [*lines, ""]


def of_models(plan: Plan) -> list[str]:
    """One row for each model."""
    lines = ["| model | variant | input | batch | precision | normalisation | GFLOP | memory | reason |", "|---|" + "---|" * 8]
    decisions_by_subject = {decision.subject: decision for decision in plan.decisions}
    for name, model in plan.models.items():
        prefix = f"models.{name}"
        parts = f"{model.batch_size}" + (f" in {model.accumulate} parts" if model.accumulate > 1 else "")
        size, values = f"{model.input_size[0]}x{model.input_size[1]}", decisions_by_subject[f"{prefix}.normalisation"].value
        because = f"{decisions_by_subject[f'{prefix}.variant'].reason}; {decisions_by_subject[f'{prefix}.input_size'].reason}"
        lines.append(
            f"| {name} | {model.variant} | {size} | {parts} | {model.precision} | {values} "
            f"| {model.flops / 1e9:.0f} | {model.memory / 2**30:.1f} GiB | {because} |"
        )
    return [*lines, ""]


def page(options: argparse.Namespace) -> str:
    lines = [
        "# Plans that were made", "",
        f"Made by `python -m benchmarks.plans --data DIR` ({options.protocol} protocol, {options.memory}, {options.device}): "
        "subsets of six public sets, and three generated ones; no time limit. GFLOP are of one image, memory is of one part "
        "of the batch.", "",
    ]  # fmt: skip
    names = [name for name in SPECIFICATIONS if (options.data / name).is_dir()]
    for missing in SPECIFICATIONS.keys() - set(names):
        print(f"{missing} is not in {options.data}: left out", file=sys.stderr)
    first = ""
    for name in [*names, *GENERATED]:
        dataset = generate(name, options.root) if name in GENERATED else bring_in(options.data, name, options.root)
        first = first or dataset
        plan = make(dataset, options.protocol, options.memory, options.device, options)
        lines += [f"## {name}", "", *of_dataset(plan), *of_models(plan)]
    study = make(first, "benchmark", options.memory, options.device, options)
    lines += [f"## The study's protocol ({first}, {options.memory})", "", *of_dataset(study), *of_models(study)]
    lines += [f"## More memory ({first}, a GPU)", "", "Variant, input, batch and parts.", ""]
    grown = {memory: make(first, "auto", memory, "cuda", options) for memory in MEMORIES}
    lines += ["| model | " + " | ".join(MEMORIES) + " |", "|---|" + "---|" * len(MEMORIES)]
    for name in study.models:
        cells = [grown[memory].models[name] for memory in MEMORIES]
        shown = [f"{m.variant}, {m.input_size[0]}x{m.input_size[1]}, {m.batch_size}/{m.accumulate}" for m in cells]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--protocol", default="auto")
    parser.add_argument("--memory", default="8G")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--models", default="")
    parser.add_argument("--root", type=Path, default=Path("benchmark_data/plans"))
    options = parser.parse_args()
    configure_logging()
    text = page(options)
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
