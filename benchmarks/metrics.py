"""How long all metrics of one pair of masks take, and that they agree with MONAI's.

    python -m benchmarks.metrics [--size 1024] [--repeats 7]

Pairs of label maps with two classes: smooth objects with a false alarm far off, vessels (clDice included), and noise, the
worst there is. Times are processor seconds of one thread, the median of the repeats.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import cv2
import numpy as np
from numpy.typing import NDArray

from autoseg.evaluation.case import mask_of, score_case
from autoseg.metrics.skeleton import cldice

MEMBERS = {"first": (1,), "second": (2,)}
Labels = NDArray[np.uint8]


def objects(size: int, shift: int) -> Labels:
    label = np.zeros((size, size), np.uint8)
    centre = (size // 2 + shift, size // 2)
    cv2.ellipse(label, centre, (size // 4, size // 6), 30, 0, 360, 1, -1)
    cv2.circle(label, centre, size // 12, 2, -1)
    if shift:
        cv2.circle(label, (size // 10, size // 10), size // 40, 1, -1)
        cv2.circle(label, (9 * size // 10, size // 10), size // 40, 2, -1)
    return label


def vessels(size: int, shift: int) -> Labels:
    field = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(size, size)), (0, 0), size / 40)
    field = np.roll(field, shift // 4, axis=1)
    line = np.abs(field) < 0.04 * field.std()
    label = line.astype(np.uint8)
    label[:, size // 2 :] *= 2
    return label


def noise(size: int, shift: int) -> Labels:
    return np.random.default_rng(shift).integers(0, 3, (size, size), dtype=np.uint8)


def seconds(call: object, repeats: int) -> float:
    assert callable(call)
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


def monai_hd95(prediction: Labels, reference: Labels) -> list[float]:
    import torch
    from monai.metrics import compute_hausdorff_distance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pair = [torch.from_numpy(np.stack([one == 1, one == 2]))[None] for one in (prediction, reference)]
        distance = compute_hausdorff_distance(*pair, include_background=True, percentile=95)
    return [float(value) for value in distance[0]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"{options.size} x {options.size}, two classes; processor seconds on one thread")
    print("| masks | counts and surfaces | with clDice | HD95 | MONAI's HD95 |")
    print("|---|---|---|---|---|")
    for draw in (objects, vessels, noise):
        prediction, reference = draw(options.size, options.size // 50), draw(options.size, 0)

        def score(prediction: Labels = prediction, reference: Labels = reference) -> object:
            return score_case(prediction, reference, MEMBERS)

        def middle_lines(prediction: Labels = prediction, reference: Labels = reference) -> None:
            for member in MEMBERS.values():
                cldice(mask_of(prediction, member), mask_of(reference, member))

        base = seconds(score, options.repeats)
        extra = f"{base + seconds(middle_lines, options.repeats):.3f}" if draw is vessels else "not thin"
        ours = ", ".join(f"{one.hd95:.4f}" for one in score_case(prediction, reference, MEMBERS).values())
        theirs = ", ".join(f"{value:.4f}" for value in monai_hd95(prediction, reference))
        print(f"| {draw.__name__} | {base:.3f} | {extra} | {ours} | {theirs} |")


if __name__ == "__main__":
    main()
