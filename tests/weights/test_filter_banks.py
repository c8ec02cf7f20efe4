"""Filter banks are what they say, and blurring is scipy's."""

import numpy as np
import pytest
import timm
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

import passband.models.separable_resnet  # noqa: F401 - registers the model
from passband.core.errors import PassbandError
from passband.weights.banks import draw_filters, filter_bank
from passband.weights.smooth import blurred, smooth


def ours() -> nn.Module:
    return timm.create_model("separable_resnet", depth=1, width=4, multiplier=3, num_classes=4)


def test_same_gives_each_channel_one_set_and_different_does_not() -> None:
    model = ours()
    draw_filters(model, "same", seed=1)
    for _, kernels in filter_bank(model):
        by_channel = kernels.view(-1, 3, 9)
        assert (by_channel == by_channel[0]).all()
        assert len(kernels[:3].unique(dim=0)) == 3
    draw_filters(model, "different", seed=1)
    for _, kernels in filter_bank(model):
        assert len(kernels.unique(dim=0)) == len(kernels)
        assert kernels.abs().max() <= 1 / 3
    everything = torch.cat([kernels.flatten() for _, kernels in filter_bank(model)])
    assert everything.std() == pytest.approx(1 / 3 / 3**0.5, rel=0.05)


def test_the_seed_decides_and_nothing_else_does() -> None:
    first, second = ours(), ours()
    for model in (first, second):
        torch.rand(1)
        draw_filters(model, "different", seed=5)
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(filter_bank(first), filter_bank(second), strict=True))
    draw_filters(second, "different", seed=6)
    assert not torch.equal(filter_bank(first)[0][1], filter_bank(second)[0][1])


@pytest.mark.parametrize("padding", [{"kernel_size": 3, "padding": 1}, {"kernel_size": 8, "padding": "same"}])
def test_identity_leaves_the_image_and_box_averages_it(padding: dict[str, object]) -> None:
    convolution = nn.Conv2d(2, 2, groups=2, bias=False, **padding)  # type: ignore[arg-type]
    images = torch.randn(1, 2, 12, 12)
    draw_filters(convolution, "identity", seed=0)
    assert torch.equal(convolution(images), images)
    draw_filters(convolution, "box", seed=0)
    side = convolution.kernel_size[0]
    assert torch.equal(convolution.weight, torch.full_like(convolution.weight, 1 / side**2))


def test_a_model_without_depthwise_convolutions_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3))
    for edit in (lambda: draw_filters(model, "box", seed=0), lambda: smooth(model), lambda: filter_bank(model)):
        with pytest.raises(PassbandError, match="no depthwise convolution"):
            edit()
    with pytest.raises(PassbandError, match="did you mean 'box'"):
        draw_filters(ours(), "boxes", seed=0)  # type: ignore[arg-type]


def test_blurring_is_scipys_with_zeros_outside() -> None:
    kernels = torch.randn(5, 1, 7, 7, dtype=torch.float64)
    ours_ = blurred(kernels, 1.5, keep_norm=False).numpy()
    theirs = np.stack([gaussian_filter(k, 1.5, mode="constant", truncate=8.0) for k in kernels[:, 0].numpy()])
    assert np.abs(ours_[:, 0] - theirs).max() < 1e-12


def test_smoothing_keeps_the_norm_and_lowers_high_frequencies() -> None:
    model = ours()
    before = [kernels.clone() for _, kernels in filter_bank(model)]
    smooth(model, sigma=0.0)
    assert all(torch.equal(a, b) for a, (_, b) in zip(before, filter_bank(model), strict=True))
    smooth(model, sigma=1.0)
    for old, (_, new) in zip(before, filter_bank(model), strict=True):
        torch.testing.assert_close(new.flatten(1).norm(dim=1), old.flatten(1).norm(dim=1))
        dc = [k.sum((2, 3)).square().sum() / k.square().sum() for k in (old, new)]
        assert dc[1] > dc[0]
    with pytest.raises(PassbandError, match="sigma of 0 pixels or more; got -1"):
        smooth(model, sigma=-1.0)


def test_a_zero_kernel_stays_zero() -> None:
    assert torch.equal(blurred(torch.zeros(1, 1, 3, 3), 1.0), torch.zeros(1, 1, 3, 3))
