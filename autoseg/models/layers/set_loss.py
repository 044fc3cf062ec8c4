"""Set prediction loss: each class of an image is matched to its best query; the other queries must predict "no object".

Cheng et al.: Masked-attention Mask Transformer for Universal Image Segmentation. CVPR 2022; points after Kirillov et
al.: PointRend: Image Segmentation as Rendering. CVPR 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from autoseg.models.layers.precision import full_precision
from autoseg.models.layers.query_decoder import Prediction

CLASS_WEIGHT, MASK_WEIGHT, DICE_WEIGHT = 2.0, 5.0, 5.0
# Most queries are unmatched; with full weight they would dominate the loss.
_NO_OBJECT_WEIGHT = 0.1
# Fraction of the points of a mask that are the most uncertain among three times as many candidates.
_OVERSAMPLING = 3
_UNCERTAIN_FRACTION = 0.75


class Matches(NamedTuple):
    """Index of image, query and class of each target mask; three tensors of equal length."""

    image: Tensor
    query: Tensor
    label: Tensor


def set_loss(
    predictions: Sequence[Prediction],
    target: Tensor,
    valid: Tensor,
    extent: tuple[float, float],
    points: int,
) -> Tensor:
    """Sum of class, mask and Dice terms over all predictions; each prediction is matched separately.

    target (B, K, H, W) in {0, 1}: one mask for each class that occurs in the image. valid (B, 1, H, W): 0 for the ignore
    label. extent: the fraction (x, y) of the predicted maps that the image covers; the rest is padding. points: number of
    points compared in each mask. Their locations depend on torch's global random state.
    """
    generator = _generator(target.device)
    with full_precision(target):
        target, valid = target.float(), valid.float()
        predictions = [Prediction(prediction.classes.float(), prediction.masks.float()) for prediction in predictions]
        all_matches = match(predictions, target * valid, valid, extent, points, generator)
        losses = [
            _loss(prediction, matches, target=target, valid=valid, extent=extent, points=points, generator=generator)
            for prediction, matches in zip(predictions, all_matches, strict=True)
        ]
        return torch.stack(losses).sum()


def _generator(device: torch.device) -> torch.Generator:
    """A generator on the device, seeded from torch's global random state."""
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, ())))


def sample(maps: Tensor, locations: Tensor) -> Tensor:
    """Bilinear samples of (N, C, H, W) at locations (N, P, 2): (N, C, P). x and y; the map's edges are at 0 and 1."""
    return F.grid_sample(maps, 2 * locations[:, None] - 1, mode="bilinear", align_corners=False).squeeze(2)


@torch.no_grad()
def match(
    predictions: Sequence[Prediction],
    target: Tensor,
    valid: Tensor,
    extent: tuple[float, float],
    points: int,
    generator: torch.Generator,
) -> list[Matches]:
    """For each prediction, the assignment of queries to occurring classes with the lowest cost, image by image."""
    occurring = (target.flatten(2).amax(dim=2) > 0).cpu().numpy()
    costs = torch.stack([_costs(one, target, valid, extent, points, generator) for one in predictions]).cpu().numpy()
    all_matches = []
    for cost in costs:
        rows: list[tuple[int, int, int]] = []
        for image, present in enumerate(occurring):
            labels = present.nonzero()[0]
            queries, columns = linear_sum_assignment(cost[image][:, labels])
            rows += [(image, int(query), int(labels[column])) for query, column in zip(queries, columns, strict=True)]
        indices = torch.tensor(rows, dtype=torch.long, device=target.device).reshape(-1, 3)
        all_matches.append(Matches(*indices.unbind(dim=1)))
    return all_matches


def _costs(
    prediction: Prediction,
    target: Tensor,
    valid: Tensor,
    extent: tuple[float, float],
    points: int,
    generator: torch.Generator,
) -> Tensor:
    """(B, Q, K): cost of assigning each class to each query, on points that all masks share."""
    locations = torch.rand(len(target), points, 2, generator=generator, device=target.device)
    logits = sample(prediction.masks, locations * locations.new_tensor(extent))
    counted = sample(valid, locations).ge(0.5).float()
    targets = sample(target, locations).transpose(1, 2) * counted.transpose(1, 2)
    # Cross entropy is softplus(x) - x inside the target mask and softplus(x) outside: one sum serves all classes.
    background_cost = F.softplus(logits) @ counted.transpose(1, 2)
    mask = (background_cost - logits @ targets) / counted.sum(dim=2, keepdim=True).clamp(min=1)
    probabilities = logits.sigmoid() * counted
    overlap = 2 * probabilities @ targets + 1
    dice = 1 - overlap / (probabilities.sum(dim=2, keepdim=True) + targets.sum(dim=1, keepdim=True) + 1)
    class_probabilities = prediction.classes.softmax(dim=2)[..., :-1]
    return MASK_WEIGHT * mask + DICE_WEIGHT * dice - CLASS_WEIGHT * class_probabilities


def _loss(
    prediction: Prediction,
    matches: Matches,
    target: Tensor,
    valid: Tensor,
    extent: tuple[float, float],
    points: int,
    generator: torch.Generator,
) -> Tensor:
    classes = prediction.classes
    no_object = classes.shape[2] - 1
    targets = torch.full(classes.shape[:2], no_object, dtype=torch.long, device=classes.device)
    targets[matches.image, matches.query] = matches.label
    weights = torch.ones(no_object + 1, device=classes.device)
    weights[no_object] = _NO_OBJECT_WEIGHT
    loss = CLASS_WEIGHT * F.cross_entropy(classes.transpose(1, 2), targets, weights)
    masks = prediction.masks[matches.image, matches.query].unsqueeze(1)
    if not len(masks):
        return loss + 0 * prediction.masks.sum()
    locations = uncertain_points(masks, extent, points, generator)
    logits = sample(masks, locations * locations.new_tensor(extent)).squeeze(1)
    with torch.no_grad():
        counted = sample(valid[matches.image], locations).squeeze(1).ge(0.5).float()
        mask_targets = sample(target[matches.image, matches.label].unsqueeze(1), locations).squeeze(1) * counted
    cross_entropy = F.binary_cross_entropy_with_logits(logits, mask_targets, reduction="none") * counted
    mask = cross_entropy.sum(dim=1) / counted.sum(dim=1).clamp(min=1)
    probabilities = logits.sigmoid() * counted
    dice = 1 - (2 * (probabilities * mask_targets).sum(dim=1) + 1) / (probabilities.sum(dim=1) + mask_targets.sum(dim=1) + 1)
    return loss + MASK_WEIGHT * mask.mean() + DICE_WEIGHT * dice.mean()


@torch.no_grad()
def uncertain_points(masks: Tensor, extent: tuple[float, float], points: int, generator: torch.Generator) -> Tensor:
    """Locations (N, points, 2) in the image for masks (N, 1, h, w): three quarters are the most uncertain, the rest random."""
    num_uncertain = int(_UNCERTAIN_FRACTION * points)
    candidates = torch.rand(len(masks), _OVERSAMPLING * points, 2, generator=generator, device=masks.device)
    uncertainty = -sample(masks, candidates * candidates.new_tensor(extent)).abs().squeeze(1)
    selected = uncertainty.topk(num_uncertain, dim=1).indices
    selected = candidates.gather(1, selected[..., None].expand(-1, -1, 2))
    random = torch.rand(len(masks), points - num_uncertain, 2, generator=generator, device=masks.device)
    return torch.cat([selected, random], dim=1)
