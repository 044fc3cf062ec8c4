"""Mask2Former's parts against plain ones: deformable attention, the matching, the loss, the ResNet's names."""

from __future__ import annotations

import re

import pytest
import torch
import torchvision
from torch import Tensor

from autoseg import models
from autoseg.models.base import ModelOutput
from autoseg.models.layers.pixel_decoder import DeformableAttention
from autoseg.models.layers.query_decoder import Prediction
from autoseg.models.layers.set_loss import match, set_loss, uncertain_points

POINTS = 400


def corners(size: int = 16) -> Tensor:
    """(1, 3, size, size): background, and two squares in opposite corners."""
    target = torch.zeros(1, 3, size, size)
    target[:, 1, : size // 2, : size // 2] = 1
    target[:, 2, size // 2 :, size // 2 :] = 1
    target[:, 0] = 1 - target.sum(dim=1)
    return target


def perfect(target: Tensor, queries: tuple[int, ...], count: int = 6) -> Prediction:
    """Query `queries[k]` predicts class k and exactly its mask; the others predict "no object"."""
    classes = torch.full((1, count, target.shape[1] + 1), -20.0)
    masks = torch.full((1, count, *target.shape[2:]), -20.0)
    classes[:, :, -1] = 20
    for label, query in enumerate(queries):
        classes[:, query] = -20
        classes[:, query, label] = 20
        masks[:, query] = 40 * target[:, label] - 20
    return Prediction(classes, masks)


def test_deformable_attention_point_by_point() -> None:
    torch.manual_seed(0)
    attention, sizes = DeformableAttention(16), [(2, 3), (4, 5), (3, 7)]
    torch.nn.init.normal_(attention.offset.weight, std=0.2)
    torch.nn.init.normal_(attention.mix.weight)
    tokens, query = torch.randn(1, 47, 16), torch.randn(1, 5, 16)
    centres = torch.rand(5, 2)
    with torch.no_grad():
        ours = attention(query, tokens, sizes, centres)
        values = attention.value(tokens)[0].unflatten(1, (8, 2))
        offsets = attention.offset(query)[0].unflatten(1, (8, 3, 4, 2))
        weights = attention.mix(query)[0].unflatten(1, (8, 12)).softmax(dim=2).unflatten(2, (3, 4))
        attended = torch.zeros(5, 8, 2)
        for q in range(5):
            for head in range(8):
                start = 0
                for level, (height, width) in enumerate(sizes):
                    grid = values[start : start + height * width, head].unflatten(0, (height, width))
                    start += height * width
                    for point in range(4):
                        dx, dy = offsets[q, head, level, point].tolist()
                        x, y = centres[q, 0].item() * width + dx - 0.5, centres[q, 1].item() * height + dy - 0.5
                        attended[q, head] += weights[q, head, level, point] * bilinear(grid, x, y)
        reference = attention.project(attended.flatten(1))
    torch.testing.assert_close(ours[0], reference, rtol=1e-4, atol=1e-5)


def bilinear(grid: Tensor, x: float, y: float) -> Tensor:
    total = torch.zeros(grid.shape[2])
    for row in range(grid.shape[0]):
        for column in range(grid.shape[1]):
            total += max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row)) * grid[row, column]
    return total


def test_each_class_is_matched_to_the_query_with_its_mask() -> None:
    target, valid = corners(), torch.ones(1, 1, 16, 16)
    (matches,) = match([perfect(target, (4, 0, 2))], target, valid, (1.0, 1.0), POINTS, torch.Generator().manual_seed(0))
    assert dict(zip(matches.label.tolist(), matches.query.tolist(), strict=True)) == {0: 4, 1: 0, 2: 2}


def test_absent_classes_are_not_matched() -> None:
    target, valid = corners(), torch.ones(1, 1, 16, 16)
    target[:, 0] += target[:, 2]
    target[:, 2] = 0
    (matches,) = match([perfect(target, (4, 0, 2))], target, valid, (1.0, 1.0), POINTS, torch.Generator().manual_seed(0))
    assert sorted(matches.label.tolist()) == [0, 1]


def test_a_perfect_prediction_has_a_small_loss_and_a_wrong_one_a_large_loss() -> None:
    torch.manual_seed(0)
    target, valid = corners(64), torch.ones(1, 1, 64, 64)
    good = set_loss([perfect(target, (4, 0, 2))], target, valid, (1.0, 1.0), POINTS)
    swapped = set_loss([perfect(target[:, [0, 2, 1]], (4, 0, 2))], target, valid, (1.0, 1.0), POINTS)
    # The rest of the good loss comes from the squares' edges, where both masks are interpolated.
    assert good < 1.5
    assert swapped > 10 * good


def test_padding_is_not_part_of_the_image() -> None:
    torch.manual_seed(0)
    target, valid = corners(64), torch.ones(1, 1, 64, 64)
    prediction = perfect(target, (4, 0, 2))
    padded = Prediction(prediction.classes, torch.nn.functional.pad(prediction.masks, (0, 64, 0, 32), value=20.0))
    assert set_loss([padded], target, valid, (64 / 128, 64 / 96), POINTS) < 1.5
    assert set_loss([padded], target, valid, (1.0, 1.0), POINTS) > 15


def test_ignored_pixels_do_not_count() -> None:
    target, valid = corners(), torch.ones(1, 1, 16, 16)
    valid[..., 8:] = 0
    other = target.clone()
    other[..., 9:] = torch.rand_like(other[..., 9:]).round()
    prediction = Prediction(torch.randn(1, 6, 4), torch.randn(1, 6, 16, 16))
    losses = []
    for labels in (target, other):
        # Class 2 lies in the ignored half: it is not matched and adds no loss.
        torch.manual_seed(0)
        losses.append(set_loss([prediction], labels, valid, (1.0, 1.0), POINTS))
    torch.testing.assert_close(losses[0], losses[1])


def test_a_fully_ignored_image_still_has_gradients() -> None:
    prediction = Prediction(torch.randn(1, 6, 4, requires_grad=True), torch.randn(1, 6, 16, 16, requires_grad=True))
    set_loss([prediction], corners(), torch.zeros(1, 1, 16, 16), (1.0, 1.0), POINTS).backward()
    assert prediction.classes.grad is not None and torch.isfinite(prediction.classes.grad).all()
    assert prediction.masks.grad is not None and not prediction.masks.grad.any()


def test_points_follow_the_global_seed() -> None:
    target, valid = corners(), torch.ones(1, 1, 16, 16)
    torch.manual_seed(0)
    prediction = Prediction(torch.randn(1, 6, 4), torch.randn(1, 6, 16, 16))
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(float(set_loss([prediction], target, valid, (1.0, 1.0), POINTS)))
    assert losses[0] == losses[1] != losses[2]


def test_most_points_are_where_the_mask_is_uncertain() -> None:
    # Most uncertain along x = 0.5.
    masks = (torch.arange(64) - 31.5).expand(1, 1, 64, 64).contiguous()
    locations = uncertain_points(masks, (1.0, 1.0), POINTS, torch.Generator().manual_seed(0))
    assert locations.shape == (1, POINTS, 2)
    # 300 of 1200 evenly spread points: the middle quarter.
    distance = (locations[0, : int(0.75 * POINTS), 0] - 0.5).abs()
    assert distance.max() < 0.2


def test_training_mode_returns_logits_and_own_loss() -> None:
    torch.manual_seed(0)
    network = models.build("mask2former", "resnet50", 3, 3, queries=8, points=100).train()
    output = network(torch.randn(2, 3, 40, 70))
    assert isinstance(output, ModelOutput)
    assert output.logits.shape == (2, 3, 40, 70) and torch.isfinite(output.logits).all()
    assert output.own_loss is not None
    target = torch.nn.functional.one_hot(torch.randint(0, 3, (2, 40, 70)), 3).movedim(-1, 1).float()
    assert torch.isfinite(output.own_loss(target, torch.ones(2, 1, 40, 70)))


@pytest.mark.parametrize("detectron", [False, True])
def test_the_resnet_is_torchvisions(detectron: bool) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(weights=None).eval()
    tensors = theirs.state_dict()
    if detectron:
        tensors = {detectron_name(name): value for name, value in tensors.items() if not name.startswith("fc.")}
    network = models.build("mask2former", "resnet50").eval()
    report = models.load_published(network, tensors)
    assert not [name for name in report.missing if name.startswith("encoder.")]
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours = network.encoder(image)  # type: ignore[operator]
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        for layer, map_ in zip((theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4), ours, strict=True):
            x = layer(x)
            torch.testing.assert_close(map_, x, rtol=1e-4, atol=1e-5)


def detectron_name(name: str) -> str:
    name = re.sub(r"layer(\d)", lambda m: f"res{int(m[1]) + 1}", name)
    name = re.sub(r"^conv1", "stem.conv1", name)
    name = re.sub(r"^bn1", "stem.conv1.norm", name)
    name = re.sub(r"\.bn(\d)", r".conv\1.norm", name)
    name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
    return f"backbone.{name}"
