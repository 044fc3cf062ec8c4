import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from autoseg.inference.activation import output_activation
from autoseg.inference.engine import Engine
from autoseg.schema.dataset import LabelScheme, label_scheme
from autoseg.schema.plan import ModelPlan, Normalisation, PreprocessingConfig
from autoseg.support.errors import AutosegError

TWO = label_scheme({"background": 0, "lesion": 1}, None)
REGIONS = label_scheme({"background": 0, "whole": (1, 2), "core": (2,)}, (1, 2))
IDENTITY = Normalisation(scheme="constant", mean=(0.0,) * 3, std=(1.0,) * 3)


def model_plan(input_size=(32, 32), batch=4, normalisation=IDENTITY, precision="fp32"):
    return ModelPlan(
        model="m",
        variant="v",
        input_size=input_size,
        batch_size=batch,
        accumulate=1,
        precision=precision,
        pretrained="none",
        learning_rate=1e-3,
        warmup_epochs=0,
        normalisation=normalisation,
        preprocessing="p",
        parameters=0,
        flops=0,
        memory=0,
        memory_format="contiguous",
    )


def preprocessing_config(geometry="resize", size=(32, 32)):
    return PreprocessingConfig(
        key="p", geometry=geometry, dtype="uint8", channels=3, size=size if geometry == "resize" else None
    )


class Pointwise(nn.Module):
    """Logits depend only on the pixel's own value, so tiles, padding and mirroring must not change them."""

    def __init__(self, outputs=2):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, outputs, 1)
        self.calls = []

    def forward(self, x):
        self.calls.append(tuple(x.shape))
        return self.layer(x / 255)


class ColumnDependent(Pointwise):
    """Adds a ramp over the columns: its output changes if the input is mirrored."""

    def forward(self, x):
        ramp = torch.linspace(0, 1, x.shape[-1]).expand(x.shape[0], 1, *x.shape[-2:])
        return super().forward(x) + torch.cat([ramp, -ramp], 1)


def images(*sizes, dtype=np.uint8):
    rng = np.random.default_rng(1)
    return [rng.integers(0, 255, (*size, 3)).astype(dtype) for size in sizes]


def expected(network, image):
    tensor = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    with torch.no_grad():
        return network.layer(tensor / 255).softmax(1)[0]


@pytest.mark.parametrize(
    ("model", "planned", "expected"),
    [
        ("unet", "auto", torch.channels_last), ("efficientnet_lite0_upernet", "auto", torch.channels_last),
        ("nnunet", "auto", torch.contiguous_format), ("unet", "contiguous", torch.contiguous_format),
        ("nnunet", "channels_last", torch.channels_last),
    ],
)  # fmt: skip
def test_a_processor_predicts_in_the_memory_format_of_training(model, planned, expected):
    """A network in training keeps the one that its run has chosen."""
    network = Pointwise()
    plan = replace(model_plan(), model=model, memory_format=planned)
    engine = Engine(network, plan, preprocessing_config(), TWO)
    assert engine.memory_format == expected
    (first,) = engine.probabilities(images((32, 32)))
    (second,) = Engine(Pointwise(), model_plan(), preprocessing_config(), TWO).probabilities(images((32, 32)))
    assert np.allclose(first, second, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "precision", "expected"),
    [
        ((256, 256), "fp32", 2), ((128, 128), "fp32", 8), ((192, 256), "fp32", 2), ((512, 512), "fp32", 2),
        ((256, 256), "bf16", 16),
    ],
)  # fmt: skip
def test_a_processor_takes_few_pixels_at_once_in_fp32(size, precision, expected):
    plan = model_plan(size, batch=16)
    assert Engine(Pointwise(), plan, preprocessing_config(size=size), TWO, precision=precision).batch_size == expected
    assert Engine(Pointwise(), model_plan(size, batch=1), preprocessing_config(size=size), TWO).batch_size == 1


def test_whole_images_are_batched_by_size_and_returned_in_order():
    network = Pointwise()
    engine = Engine(network, model_plan(batch=2), preprocessing_config(), TWO)
    batch_of_images = images((32, 32), (16, 32), (32, 32), (32, 32))
    probabilities = engine.probabilities(batch_of_images)
    assert sorted(network.calls) == [(1, 3, 16, 32), (1, 3, 32, 32), (2, 3, 32, 32)]
    for image, maps in zip(batch_of_images, probabilities, strict=True):
        assert maps.shape == (2, *image.shape[:2]) and maps.dtype == torch.float32
        assert torch.allclose(maps, expected(network, image), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_batches_contain_tiles_of_several_images(dtype):
    network = Pointwise()
    engine = Engine(network, model_plan(batch=4), preprocessing_config("patch"), TWO)
    batch_of_images = images((40, 70), (10, 90), (32, 32), dtype=dtype)
    probabilities = engine.probabilities(batch_of_images)
    tiles = sum(engine.num_batch_items(image) for image in batch_of_images)
    assert tiles == 2 * 4 + 5 + 1
    assert network.calls == [(4, 3, 32, 32)] * (tiles // 4) + [(tiles % 4, 3, 32, 32)] * bool(tiles % 4)
    for image, maps in zip(batch_of_images, probabilities, strict=True):
        assert maps.shape == (2, *image.shape[:2])
        assert torch.allclose(maps, expected(network, image), atol=1e-5)


def test_a_tile_is_normalised_with_statistics_of_the_whole_image():
    plan = model_plan(normalisation=Normalisation(scheme="image"))
    image = images((32, 96))[0]
    image[:, 48:] //= 4
    (probabilities,) = Engine(Pointwise(), plan, preprocessing_config("patch"), TWO).probabilities([image])
    (whole,) = Engine(Pointwise(), plan, preprocessing_config("whole"), TWO).probabilities([image])
    assert torch.allclose(probabilities, whole, atol=1e-4)


def test_regions_are_independent():
    network = Pointwise(2)
    engine = Engine(network, model_plan(), preprocessing_config(), REGIONS)
    image = images((32, 32))[0]
    (probabilities,) = engine.probabilities([image])
    tensor = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    assert torch.allclose(probabilities, network.layer(tensor / 255).sigmoid()[0], atol=1e-6)
    assert not torch.allclose(probabilities.sum(0), torch.ones(32, 32))


def test_exclusive_classes_of_a_sigmoid_loss_are_predicted_with_sigmoids():
    """Trained to .75, .20, .05; a softmax of the same logits would be .908, .076, .016."""
    shares = torch.tensor([0.75, 0.20, 0.05])

    class Constant(nn.Module):
        def forward(self, x):
            return shares.logit().view(1, 3, 1, 1).expand(x.shape[0], 3, *x.shape[-2:])

    three = LabelScheme(names=("background", "a", "b"), members=((0,), (1,), (2,)))
    activation = output_activation("sigmoid", three)
    engine = Engine(Constant(), model_plan(), preprocessing_config(), three, activation=activation)
    (maps,) = engine.probabilities(images((32, 32)))
    assert torch.allclose(maps[:, 3, 4], shares, atol=1e-6)


@pytest.mark.parametrize(("mirror", "views"), [((), 1), ((1,), 2), ((0, 1), 4)])
@pytest.mark.parametrize("geometry", ["resize", "patch"])
def test_mirrored_views_are_averaged_as_probabilities(mirror, views, geometry):
    network = ColumnDependent()
    engine = Engine(network, model_plan(), preprocessing_config(geometry), TWO, mirror=mirror)
    image = images((32, 32))[0]
    (probabilities,) = engine.probabilities([image])
    assert len(network.calls) == views
    tensor = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    with torch.no_grad():
        plain, mirrored = network(tensor).softmax(1), network(tensor.flip(3)).softmax(1).flip(3)
    mean = (plain + mirrored)[0] / 2 if 1 in mirror else plain[0]
    assert torch.allclose(probabilities, mean, atol=1e-6)


def test_the_network_keeps_its_mode_even_after_an_error():
    network = nn.Sequential(nn.Dropout(0.9), Pointwise())
    engine = Engine(network, model_plan(), preprocessing_config(), TWO)
    network.train()
    batch_of_images = images((32, 32))
    first, second = engine.probabilities(batch_of_images)[0], engine.probabilities(batch_of_images)[0]
    assert torch.equal(first, second)
    assert network.training and network[0].training
    network[1].layer = nn.Conv2d(5, 2, 1)
    with pytest.raises(RuntimeError):
        engine.probabilities(batch_of_images)
    assert network.training


def test_no_gradients_are_recorded():
    network = Pointwise()
    (probabilities,) = Engine(network, model_plan(), preprocessing_config(), TWO).probabilities(images((32, 32)))
    assert not probabilities.requires_grad
    # Training could not continue with tensors that were made in inference mode.
    assert not probabilities.is_inference()


def test_label_map_has_the_requested_size():
    engine = Engine(Pointwise(), model_plan(), preprocessing_config(), TWO)
    (probabilities,) = engine.probabilities(images((32, 32)))
    labels = engine.label_map(probabilities, (50, 20))
    assert labels.shape == (50, 20) and set(np.unique(labels)) <= {0, 1}


class LimitedMemory(Pointwise):
    """Fits `capacity` images at once. failed: weak references to the outputs of failed passes."""

    def __init__(self, capacity):
        super().__init__()
        self.capacity, self.failed, self.alive_at_retry = capacity, [], 0

    def forward(self, x):
        self.alive_at_retry = max(self.alive_at_retry, sum(one() is not None for one in self.failed))
        logits = super().forward(x)
        if len(x) > self.capacity:
            self.failed.append(weakref.ref(logits))
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return logits


@pytest.mark.parametrize("geometry", ["resize", "patch"])
@pytest.mark.parametrize("mirror", [(), (0, 1)])
def test_after_out_of_memory_the_batch_is_processed_in_smaller_parts(geometry, mirror, caplog):
    network = LimitedMemory(capacity=2)
    plan = model_plan(batch=8, normalisation=Normalisation(scheme="image"))
    engine = Engine(network, plan, preprocessing_config(geometry), TWO, mirror=mirror)
    batch_of_images = images(*[(32, 32)] * 5, (40, 70))
    probabilities = engine.probabilities(batch_of_images)
    expected_maps = Engine(Pointwise(), plan, preprocessing_config(geometry), TWO, mirror=mirror).probabilities(batch_of_images)
    assert all(torch.equal(one, other) for one, other in zip(probabilities, expected_maps, strict=True))
    assert engine.batch_size == 2 and network.alive_at_retry == 0
    assert [message for message in caplog.messages if "at once" in message][-1].endswith("2 at once")
    network.calls.clear()
    engine.probabilities(batch_of_images)
    assert max(call[0] for call in network.calls) == 2, "later batches start with the size that fits"


def test_an_image_that_does_not_fit_alone_is_refused_by_size():
    with pytest.raises(AutosegError, match="32x32 pixels are too many for the memory of cpu"):
        Engine(LimitedMemory(capacity=0), model_plan(), preprocessing_config(), TWO).probabilities(images((32, 32)))


def test_other_errors_of_a_network_pass():
    with pytest.raises(RuntimeError, match="expected input"):
        Engine(nn.Conv2d(5, 2, 1), model_plan(), preprocessing_config(), TWO).probabilities(images((32, 32)))
