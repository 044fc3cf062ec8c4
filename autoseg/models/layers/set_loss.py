"""The loss of a set of masks: each class of an image is given to the query that fits it best, the rest say "nothing".

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
# Most queries match nothing; at full weight they would drown those that do.
_NOTHING_WEIGHT = 0.1
# Of the points a mask is compared on, this share is where it is least sure among three times as many.
_OVERSAMPLING = 3
_UNSURE_SHARE = 0.75


class Pairs(NamedTuple):
    """Equally long: image, query and class of each target mask."""

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
    """The sum over all predictions, each matched for itself, of class, mask and Dice terms.

    target (B, K, H, W) in {0, 1}: one mask for each class that occurs in the image. valid (B, 1, H, W): 0 where nothing
    is known. extent: the part (x, y) of the predicted maps that the image covers, the rest being padding. points: how
    many pixels of each mask are compared. Where they lie follows torch's global random state.
    """
    generator = torch.Generator(target.device).manual_seed(int(torch.randint(2**62, ())))
    with full_precision(target):
        target, valid = target.float(), valid.float()
        predictions = [Prediction(one.classes.float(), one.masks.float()) for one in predictions]
        matches = match(predictions, target * valid, valid, extent, points, generator)
        losses = [
            _loss(prediction, pairs, target=target, valid=valid, extent=extent, points=points, generator=generator)
            for prediction, pairs in zip(predictions, matches, strict=True)
        ]
        return torch.stack(losses).sum()


def sample(maps: Tensor, places: Tensor) -> Tensor:
    """(N, C, H, W) at places (N, P, 2), x and y with the map's edges at 0 and 1, bilinearly: (N, C, P)."""
    return F.grid_sample(maps, 2 * places[:, None] - 1, mode="bilinear", align_corners=False).squeeze(2)


@torch.no_grad()
def match(
    predictions: Sequence[Prediction],
    target: Tensor,
    valid: Tensor,
    extent: tuple[float, float],
    points: int,
    generator: torch.Generator,
) -> list[Pairs]:
    """For each prediction, the cheapest assignment of queries to the classes that occur, image by image."""
    occurs = (target.flatten(2).amax(dim=2) > 0).cpu().numpy()
    costs = torch.stack([_costs(one, target, valid, extent, points, generator) for one in predictions]).cpu().numpy()
    matches = []
    for cost in costs:
        rows: list[tuple[int, int, int]] = []
        for image, present in enumerate(occurs):
            labels = present.nonzero()[0]
            queries, columns = linear_sum_assignment(cost[image][:, labels])
            rows += [(image, int(query), int(labels[column])) for query, column in zip(queries, columns, strict=True)]
        pairs = torch.tensor(rows, dtype=torch.long, device=target.device).reshape(-1, 3)
        matches.append(Pairs(*pairs.unbind(dim=1)))
    return matches


def _costs(
    prediction: Prediction,
    target: Tensor,
    valid: Tensor,
    extent: tuple[float, float],
    points: int,
    generator: torch.Generator,
) -> Tensor:
    """(B, Q, K): what it would cost to give each class to each query, judged on points that all masks share."""
    places = torch.rand(len(target), points, 2, generator=generator, device=target.device)
    logits = sample(prediction.masks, places * places.new_tensor(extent))
    counts = sample(valid, places).ge(0.5).float()
    wanted = sample(target, places).transpose(1, 2) * counts.transpose(1, 2)
    # Cross entropy is softplus(x) - x where the mask should be and softplus(x) elsewhere: one sum serves all classes.
    outside = F.softplus(logits) @ counts.transpose(1, 2)
    mask = (outside - logits @ wanted) / counts.sum(dim=2, keepdim=True).clamp(min=1)
    likely = logits.sigmoid() * counts
    overlap = 2 * likely @ wanted + 1
    dice = 1 - overlap / (likely.sum(dim=2, keepdim=True) + wanted.sum(dim=1, keepdim=True) + 1)
    certain = prediction.classes.softmax(dim=2)[..., :-1]
    return MASK_WEIGHT * mask + DICE_WEIGHT * dice - CLASS_WEIGHT * certain


def _loss(
    prediction: Prediction,
    pairs: Pairs,
    target: Tensor,
    valid: Tensor,
    extent: tuple[float, float],
    points: int,
    generator: torch.Generator,
) -> Tensor:
    classes = prediction.classes
    nothing = classes.shape[2] - 1
    wanted = torch.full(classes.shape[:2], nothing, dtype=torch.long, device=classes.device)
    wanted[pairs.image, pairs.query] = pairs.label
    weights = torch.ones(nothing + 1, device=classes.device)
    weights[nothing] = _NOTHING_WEIGHT
    loss = CLASS_WEIGHT * F.cross_entropy(classes.transpose(1, 2), wanted, weights)
    masks = prediction.masks[pairs.image, pairs.query].unsqueeze(1)
    if not len(masks):
        return loss + 0 * prediction.masks.sum()
    places = unsure_places(masks, extent, points, generator)
    logits = sample(masks, places * places.new_tensor(extent)).squeeze(1)
    with torch.no_grad():
        counts = sample(valid[pairs.image], places).squeeze(1).ge(0.5).float()
        truth = sample(target[pairs.image, pairs.label].unsqueeze(1), places).squeeze(1) * counts
    each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * counts
    mask = each.sum(dim=1) / counts.sum(dim=1).clamp(min=1)
    likely = logits.sigmoid() * counts
    dice = 1 - (2 * (likely * truth).sum(dim=1) + 1) / (likely.sum(dim=1) + truth.sum(dim=1) + 1)
    return loss + MASK_WEIGHT * mask.mean() + DICE_WEIGHT * dice.mean()


@torch.no_grad()
def unsure_places(masks: Tensor, extent: tuple[float, float], points: int, generator: torch.Generator) -> Tensor:
    """(N, points, 2) of the image, for masks (N, 1, h, w): three quarters where the mask is unsure, the rest anywhere."""
    unsure = int(_UNSURE_SHARE * points)
    offered = torch.rand(len(masks), _OVERSAMPLING * points, 2, generator=generator, device=masks.device)
    doubt = -sample(masks, offered * offered.new_tensor(extent)).abs().squeeze(1)
    chosen = doubt.topk(unsure, dim=1).indices
    chosen = offered.gather(1, chosen[..., None].expand(-1, -1, 2))
    anywhere = torch.rand(len(masks), points - unsure, 2, generator=generator, device=masks.device)
    return torch.cat([chosen, anywhere], dim=1)
