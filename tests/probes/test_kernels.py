"""The probe `kernels`: which kernels it takes, how it paints them, and how smooth it finds them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from passband.core.errors import PassbandError
from passband.core.results import Gallery, Map, Scalar
from passband.models.layers import SeparableConv2d
from passband.probes.kernels import kernels


def take(model: nn.Module, **options: object) -> tuple[Gallery, Map, Scalar]:
    gallery, spectrum, smooth = kernels(model, None, **options)
    assert isinstance(gallery, Gallery) and isinstance(spectrum, Map) and isinstance(smooth, Scalar)
    return gallery, spectrum, smooth


def test_kernels_are_painted_by_sign_around_gray_each_by_its_own_largest_weight() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[0, 0, 0, 1] = 4.0
        model[0].weight[1, 2, 2, 0] = -0.01
    gallery, _, _ = take(model)
    first, second = (picture.image for picture in gallery.pictures)
    factor = first.shape[0] // 3
    assert first.shape == (3 * factor, 3 * factor, 3) and factor >= 8
    assert np.array_equal(np.unique(first), [128, 255]) and np.array_equal(np.unique(second), [0, 128])
    assert (first[:factor, factor : 2 * factor, 0] == 255).all() and (first == 255).sum() == factor**2
    assert (second[2 * factor :, :factor, 2] == 0).all()
    assert torch.equal(torch.from_numpy(gallery.arrays["weight"]), model[0].weight)


def test_the_spectrum_of_deltas_is_flat_and_one_with_others_the_mean() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[0, 0, 1, 1] = 3.0
        model[0].weight[1, 0, 0, 2] = -1.0
    _, spectrum, smooth = take(model, size=16)
    np.testing.assert_allclose(spectrum.values, np.full((16, 16), 2.0), rtol=1e-6)
    assert (spectrum.x.values[0], spectrum.x.values[8], len(spectrum.y.values)) == (-0.5, 0.0, 16)
    # One weight of nine in the center meets 4 of 12 neighbors, one in a corner 2: 1 - (4/12)·9/2, 1 - (2/12)·9/2.
    np.testing.assert_allclose(smooth.arrays["smoothness"], [-0.5, 0.25], rtol=1e-6)
    assert smooth.value == pytest.approx(-0.125) and smooth.n == 2


def test_dead_kernels_take_no_part_in_the_smoothness_and_are_told() -> None:
    model = nn.Conv2d(1, 3, 3)
    with torch.no_grad():
        model.weight.fill_(0.2)
        model.weight[1] = 0
    _, _, smooth = take(model)
    assert smooth.value == pytest.approx(1.0) and smooth.n == 2
    assert any("1 slices are zero" in note for note in smooth.notes)


def test_a_separable_stem_shows_the_dense_kernel_that_it_is() -> None:
    stem = SeparableConv2d(3, 5, 3, multiplier=9)
    gallery, _, _ = take(nn.Sequential(nn.Conv2d(3, 3, 1), stem, nn.Conv2d(5, 5, 3)), count=4)
    assert gallery.how["layer"] == "1" and len(gallery.pictures) == 4
    # What it is, asked of the layer itself: the answer to a single lit pixel is the flipped kernel.
    lit = torch.zeros(1, 3, 5, 5)
    lit[0, 1, 2, 2] = 1
    response = stem(lit).detach()[0, :, 1:4, 1:4].flip((1, 2))
    np.testing.assert_allclose(gallery.arrays["weight"][:, 1], response[:4].numpy(), atol=1e-6)


def test_another_layer_goes_by_its_name() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 5, groups=4), nn.Conv2d(4, 6, 3))
    assert kernels(model, None)[0].how["layer"] == "1"
    gallery, _, _ = take(model, layer="2")
    assert gallery.how["kernel"] == [6, 4, 3, 3] and gallery.pictures[0].image.ndim == 2


def test_the_model_is_left_as_it_was_found() -> None:
    model = nn.Sequential(SeparableConv2d(3, 4, 3, multiplier=2), nn.BatchNorm2d(4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    take(model)
    assert model.training and model[1].training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_mistakes_are_one_line() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    for call, words in (
        (lambda: kernels(nn.Linear(3, 3), None), "Linear has none"),
        (lambda: kernels(nn.Conv2d(3, 3, 1), None), "larger than 1×1"),
        (lambda: kernels(model, None, layer="1"), "available: 0"),
        (lambda: kernels(model, None, size=2), "raise the size"),
        (lambda: kernels(model, None, count=0), "count is 1 or more"),
    ):
        with pytest.raises(PassbandError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
