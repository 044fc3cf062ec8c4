import numpy as np
import pytest
import torch
from torch import nn

from autoseg import models
from autoseg.explanation.cam import GRADCAM, GRADIENT_FREE, as_map, find_layer, heat_map
from autoseg.support.errors import AutosegError

pytest.importorskip("pytorch_grad_cam")
SIZE = (64, 96)


class Two(nn.Module):
    """A layer with two maps; class 1 depends only on the first."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Identity()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        features = self.maps(x * self.scale)
        return torch.stack([-features[:, 0], features[:, 0]], 1)


def test_gradcam_follows_its_definition():
    """Weights are the spatial means of the target's gradients; negative values become 0; the maximum is 1."""
    images = torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.3
    region = np.zeros((8, 8), bool)
    region[2:5, 2:5] = True
    network = Two().eval()
    heat = heat_map(network, network.maps, images, 1, region, GRADCAM)
    expected = images[0, 0].clamp(min=0).detach().numpy()
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    assert np.corrcoef(heat.ravel(), expected.ravel())[0, 1] > 0.999 and heat.max() == pytest.approx(1, abs=1e-4)


def test_tokens_are_reshaped_to_a_map():
    tokens = torch.arange(6.0).reshape(1, 6, 1)
    assert as_map((20, 30))(tokens).tolist() == [[[[0, 1, 2], [3, 4, 5]]]]
    assert as_map(SIZE, 8)(torch.rand(1, 3, 32, 4)).shape == (1, 3, 8, 4)
    with pytest.raises(AutosegError, match="no grid"):
        as_map((20, 30))(torch.rand(1, 7, 1))


def test_unknown_layers_raise():
    with pytest.raises(AutosegError, match="no layer 'decodr'"):
        find_layer(models.build("unet", "16"), "decodr")


@pytest.mark.parametrize("name", models.names())
def test_the_cam_layer_of_every_model_gives_a_map(name):
    spec = models.spec(name)
    variant = min(spec.variants, key=lambda candidate: candidate.parameters).name
    torch.manual_seed(0)
    network = models.build(name, variant, 3, 3, input_size=SIZE).eval()
    layer = find_layer(network, spec.cam_layer)
    region = np.zeros(SIZE, bool)
    region[20:40, 30:60] = True
    images = torch.rand(1, 3, *SIZE)
    for method in (GRADCAM, GRADIENT_FREE):
        # Grad-CAM of a random network may be zero for a class (negative evidence only), but not for all three.
        heatmaps = [heat_map(network, layer, images.clone(), output, region, method) for output in range(3)]
        for heat in heatmaps:
            assert heat.shape == SIZE and np.isfinite(heat).all() and 0 <= heat.min() <= heat.max() <= 1.0001
        assert max(heat.max() for heat in heatmaps) > 0
