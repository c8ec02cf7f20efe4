"""The probe `similarity`: which layers it compares, how it cuts the images, and what it says of each of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from passband.core.errors import NotApplicable, PassbandError
from passband.core.results import Map, Result, Scalar
from passband.core.spec import ImageSpec
from passband.data.dataset import Batches, ImageSet
from passband.models.layers import SeparableConv2d
from passband.models.wrap import Classifier
from passband.probes.cka import cka, hsic
from passband.probes.grams import centered_grams, layers_of
from passband.probes.similarity import compare, similarity


def images(count: int = 40, size: int = 16) -> Batches:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return ImageSet("noise", pixels, np.arange(count) % 2, ("a", "b"), "0" * 64).batches(size)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 6), nn.Linear(6, 2)
    )


def both(found: tuple[Result, ...]) -> tuple[Map, Scalar]:
    plane, scalar = found
    assert isinstance(plane, Map) and isinstance(scalar, Scalar)
    return plane, scalar


def biased(first: Tensor, second: Tensor) -> float:
    x, y = ((one.flatten(1) - one.flatten(1).mean(0)).detach().double() for one in (first, second))
    norm = torch.linalg.norm
    return float(norm(y.T @ x) ** 2 / (norm(x.T @ x) * norm(y.T @ y)))


def test_it_compares_what_the_layers_gave_before_it_was_written_over() -> None:
    model = network()
    plane, _ = both(similarity(model, images(), estimator="biased"))
    pixels = torch.cat([x for x, _ in images()])
    first = model[0](pixels)
    second = model[2](first.relu())
    assert plane.y.values == ("0", "2", "4", "5") and plane.x.values == (1, 2, 3, 4)
    assert plane.values[0, 1] == pytest.approx(biased(first, second), rel=1e-5)
    assert plane.values == pytest.approx(plane.values.T) and np.diag(plane.values) == pytest.approx(np.ones(4))


@pytest.mark.parametrize("count", [4, 5, 7, 33, 40])
def test_no_number_of_images_leaves_a_batch_too_small(count: int) -> None:
    plane, _ = both(similarity(network(), images(count), batch=4))
    sizes = plane.how["batches"]
    assert sum(sizes) == count and min(sizes) >= 4 and max(sizes) - min(sizes) <= 1
    assert np.isfinite(plane.values).all() and len(plane.arrays["hsic"]) == len(sizes)


def test_it_does_not_matter_how_the_images_come() -> None:
    found = [both(similarity(network(), images(40, size), batch=16))[0].values for size in (1, 7, 40)]
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


def test_too_few_images_or_too_small_batches_are_refused_in_a_line() -> None:
    with pytest.raises(PassbandError, match="needs 4 images or more; got 3: give more, or take estimator=biased"):
        similarity(network(), images(3))
    with pytest.raises(PassbandError, match="batches of 4 images or more; got batch=3"):
        similarity(network(), images(), batch=3)
    assert len(similarity(network(), images(3), estimator="biased")) == 2


def test_a_constant_layer_has_no_similarity_and_is_left_out_of_the_mean() -> None:
    model = network()
    with torch.no_grad():
        model[2].weight.zero_()
    plane, scalar = both(similarity(model, images(), layers=("0", "2", "4")))
    assert np.isnan(plane.values[1:]).all() and np.isnan(plane.values[:, 1:]).all() and plane.values[0, 0] == 1
    assert any("The same for every image, so that CKA is undefined: 2, 4" in note for note in plane.notes)
    assert scalar.value is None and scalar.low is None and not scalar.arrays


def test_shallow_and_deep_are_the_first_and_the_last_third() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), *(nn.Linear(a, 20) for a in (288, *[20] * 6)))
    plane, scalar = both(similarity(model, images(200), batch=50))
    assert scalar.value == pytest.approx(plane.values[:2, -2:].mean())
    influence = scalar.arrays["influence"]
    assert influence.shape == (200,) and influence.mean() == pytest.approx(scalar.value)
    assert scalar.low < scalar.value < scalar.high


@pytest.mark.parametrize("batch", [96, 48])
def test_the_interval_knows_how_the_mean_moves_with_each_image(batch: int) -> None:
    """To first order: against what leaving an image out of its batch really does."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), *(nn.Linear(a, 20) for a in (288, *[20] * 4)))
    pixels = torch.cat([x for x, _ in images(96)])
    layers, _ = layers_of(model, None, pixels[:3])

    def shallow_deep(parts: list[Tensor]) -> float:
        grams = [centered_grams(model, layers, part, "unbiased") for part in parts]
        own = sum(one.square().sum((1, 2)) for one in grams).numpy()
        return float(cka(sum(hsic(one, one) for one in grams).numpy(), own, own)[:2, -2:].mean())

    _, scalar = both(similarity(model, images(96), batch=batch))
    rest = list(pixels.split(batch))[1:]
    moved = [
        scalar.value - shallow_deep([torch.cat((pixels[:place], pixels[place + 1 : batch])), *rest])
        for place in range(20)
    ]
    predicted = (scalar.arrays["influence"][:20] - scalar.value) / 96
    slope = float(np.dot(moved, predicted) / np.dot(predicted, predicted))
    assert slope == pytest.approx(1, abs=0.15) and np.corrcoef(moved, predicted)[0, 1] > 0.97


def test_a_layer_called_twice_counts_with_both_outputs_and_one_not_called_is_named() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.body, self.idle = nn.Linear(3, 2), nn.Conv2d(3, 3, 1), nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(self.body(x)).mean((2, 3)))

    model = Twice()
    plane, _ = both(similarity(model, images(), estimator="biased"))
    assert plane.y.values == ("body", "head") and any("idle" in note for note in plane.notes)
    pixels = torch.cat([x for x, _ in images()])
    once = model.body(pixels)
    expected = biased(torch.cat((once, model.body(once)), 1), model(pixels))
    split = both(similarity(model, images(), estimator="biased", batch=40))[0]
    assert split.values[0, 1] == pytest.approx(expected, rel=1e-4)
    with pytest.raises(PassbandError, match="layer idle is not called"):
        similarity(model, images(), layers=("idle",))
    with pytest.raises(PassbandError, match="did you mean 'body'"):
        similarity(model, images(), layers=("boddy",))


def test_a_separable_convolution_is_one_layer_and_names_may_begin_at_the_wrapper() -> None:
    inner = nn.Sequential(SeparableConv2d(3, 4, 3, multiplier=9, path="composed"), nn.Flatten(), nn.LazyLinear(2))
    model = Classifier(inner, ImageSpec(size=(8, 8), channels=3, classes=2, mean=None, std=None, source="test"))
    with torch.no_grad():
        model(torch.rand(1, 3, 8, 8))
    assert both(similarity(model, images()))[0].y.values == ("0", "2")
    assert both(similarity(model, images(), layers=("inner.0",)))[0].y.values == ("inner.0",)


def test_two_models_are_compared_layer_by_layer() -> None:
    first, second = network(), network()
    (same,) = compare(first, second, images())
    assert isinstance(same, Map) and same.values == pytest.approx(both(similarity(first, images()))[0].values)
    (some,) = compare(first, second, images(), layers=("0", "2"), other_layers=("5",))
    assert isinstance(some, Map) and some.values.shape == (2, 1) and some.how["other_layers"] == ("5",)
    assert some.values[:, 0] == pytest.approx(same.values[:2, 3])


def test_attacked_images_are_measured_and_the_model_is_left_as_it_was_found() -> None:
    model = network()
    clean, _ = both(similarity(model, images()))
    plane, _ = both(similarity(model, images(), attack="pgd", eps=0.2, steps=2))
    assert "PGD" in plane.how["attack"] and not np.allclose(plane.values, clean.values, atol=1e-3)
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_models_that_normalize_by_the_batch_or_have_no_layers_are_refused() -> None:
    with pytest.raises(NotApplicable, match="normalizes by each"):
        similarity(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), *network()), images())
    with pytest.raises(NotApplicable, match="calls none"):
        similarity(nn.Sequential(nn.Flatten(), nn.ReLU()), images())


def test_a_layer_that_gives_nan_is_named() -> None:
    model = network()
    with torch.no_grad():
        model[4].weight.fill_(torch.nan)
    with pytest.raises(PassbandError, match="layer 4 gives NaN"):
        similarity(model, images())
