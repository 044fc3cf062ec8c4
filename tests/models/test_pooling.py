import pytest
import torch
from torch.nn import functional as F

from autoseg.models.layers.pooling import adaptive_avg_pool2d, pool_by_products


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (6, 6), (7, 9), (12, 5)])
def test_products_average_the_bins_of_pytorch(size):
    x = torch.randn(2, 3, 7, 9, requires_grad=True, generator=None)
    weight = torch.randn(2, 3, *size)
    gradients = []
    for pool in (F.adaptive_avg_pool2d, pool_by_products):
        result = pool(x, size)
        gradients.append((result.detach(), *torch.autograd.grad((result * weight).sum(), x)))
    for ours, theirs in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        half = pool_by_products(x.detach().bfloat16(), size)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), gradients[0][0], atol=0.02, rtol=0.02)


def test_a_processor_keeps_the_pooling_of_pytorch(monkeypatch):
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    x = torch.randn(1, 2, 5, 5)
    assert torch.equal(adaptive_avg_pool2d(x, (2, 2)), F.adaptive_avg_pool2d(x, (2, 2)))
