"""A dense convolution made separable is what it was, as nearly as its filters allow and as is said."""

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

import passband
from passband.core.errors import PassbandError
from passband.models.layers import SeparableConv2d
from passband.weights.learn import learn
from passband.weights.separate import SeparateReport, separate

FITTED = ("least-squares", "svd")


def trained(seed: int = 0) -> nn.Sequential:
    """Stand for a trained network: dense convolutions of two sizes, one of them strided and with a bias."""
    torch.manual_seed(seed)
    first, second = nn.Conv2d(3, 12, 5, stride=2, padding=2), nn.Conv2d(12, 20, 3, padding=1, bias=False)
    return nn.Sequential(first, nn.ReLU(), second).double()


def made(multiplier: int | None, filters: str) -> tuple[nn.Sequential, nn.Sequential, SeparateReport]:
    before = trained()
    after = copy.deepcopy(before)
    torch.manual_seed(1)
    return before, after, separate(after, multiplier, filters)  # type: ignore[arg-type]


def test_separating_resnet18_keeps_its_shapes_and_lets_channels_learn() -> None:
    model = timm.create_model("resnet18", num_classes=5).eval()
    images = torch.randn(1, 3, 64, 64)
    shapes = [tuple(f.shape) for f in (model(images), model.forward_features(images))]
    report = passband.separate(model, multiplier=2)
    assert len(report.names) == 17 and "conv1" in report.names and "layer2.0.downsample.0" not in report.names
    assert set(report.errors.values()) == {None}
    assert isinstance(model.conv1, SeparableConv2d) and not model.conv1.training
    assert [tuple(f.shape) for f in (model(images), model.forward_features(images))] == shapes
    learned = learn(model, "channels")
    assert learned.by_role["both"] == (0, 0) and learned.by_role["spatial"][0] == 0 < learned.learned


def test_random_filters_are_drawn_as_a_separable_layer_draws_them() -> None:
    """What recipes train from: the same numbers, in the same order, as ever."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1, bias=False))
    torch.manual_seed(3)
    separate(model, multiplier=9)
    torch.manual_seed(3)
    expected = SeparableConv2d(3, 4, 3, multiplier=9, bias=True), SeparableConv2d(4, 5, 3, multiplier=9)
    for layer, other in zip(model, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(layer.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("filters", FITTED)
def test_as_many_filters_as_pixels_are_exact(filters: str) -> None:
    before, after, report = made(None, filters)
    assert [m.multiplier for m in after if isinstance(m, SeparableConv2d)] == [25, 9]
    assert max(report.errors.values()) < 1e-11  # type: ignore[type-var]
    images = torch.randn(2, 3, 11, 12, dtype=torch.float64)
    torch.testing.assert_close(after(images), before(images), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("filters", FITTED)
def test_resnet18_keeps_its_logits_with_nine_filters(filters: str) -> None:
    torch.manual_seed(0)
    channels = (16, 32, 64, 128)  # a quarter, for speed; "d" is the stem of 3×3 convolutions
    model = timm.create_model("resnet18d", channels=channels, num_classes=5).double().eval()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    logits = model(images)
    report = separate(model, 9, filters)  # type: ignore[arg-type]
    assert len(report.names) == 19 and max(report.errors.values()) < 1e-9  # type: ignore[type-var]
    torch.testing.assert_close(model(images), logits, rtol=1e-7, atol=1e-7)


def test_a_kernel_of_more_than_nine_pixels_is_cut_to_nine_filters() -> None:
    errors = made(9, "svd")[2].errors
    assert errors["2"] < 1e-12 < 0.1 < errors["0"] < 1  # 3×3 and 5×5


@pytest.mark.parametrize("multiplier", [1, 4])
def test_the_error_of_svd_is_what_the_singular_values_say(multiplier: int) -> None:
    before, after, report = made(multiplier, "svd")
    for index, name in ((0, "0"), (2, "2")):
        kernels = before[index].weight.detach()
        squares = torch.stack([torch.linalg.svdvals(kernels[:, c].flatten(1)) ** 2 for c in range(kernels.shape[1])])
        share = squares[:, multiplier:].sum() / squares.sum()
        assert report.errors[name] == pytest.approx(float(share.sqrt()), rel=1e-9)
        assert relative(kernels, after[index].kernel()) == pytest.approx(report.errors[name], rel=1e-12)
        filters = after[index].depthwise.weight.flatten(1)
        torch.testing.assert_close(filters.norm(dim=1), torch.ones(len(filters), dtype=torch.float64))


def relative(kernels: Tensor, other: Tensor) -> float:
    return float((kernels - other.detach()).norm() / kernels.norm())


def test_nothing_near_svds_filters_is_better_and_random_filters_are_worse() -> None:
    before, after, report = made(4, "svd")
    kernels, layer = before[2].weight.detach(), after[2]
    chance = torch.Generator().manual_seed(0)
    for size in (1e-3, 1e-2, 1e-1):
        for _ in range(10):
            other = copy.deepcopy(layer)
            for parameter in other.parameters():
                change = torch.randn(parameter.shape, dtype=torch.float64, generator=chance)
                parameter.data += size * parameter.std() * change
            assert relative(kernels, other.kernel()) > report.errors["2"]
    drawn = made(4, "least-squares")[2]
    assert all(drawn.errors[name] > report.errors[name] for name in report.errors)


def test_least_squares_leaves_what_its_filters_cannot_reach() -> None:
    """Normal equations: what is missing is orthogonal to every filter of its input channel."""
    before, after, _ = made(4, "least-squares")
    missing = (before[2].weight - after[2].kernel()).flatten(2)  # [out, in, k²]
    filters = after[2].depthwise.weight.view(12, 4, 9)
    assert torch.einsum("oik,idk->oid", missing, filters).abs().max() < 1e-12 < missing.abs().max()


@pytest.mark.parametrize("filters", FITTED)
def test_more_filters_than_pixels_or_outputs_change_nothing(filters: str) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 10, 3)).double()
    separated = copy.deepcopy(model)
    report = separate(separated, 11, filters)  # type: ignore[arg-type]
    images = torch.randn(1, 2, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(separated(images), model(images), rtol=1e-9, atol=1e-9)
    assert max(report.errors.values()) < 1e-11  # type: ignore[type-var]
    few = separate(copy.deepcopy(model), 4, "svd").errors
    assert few["0"] < 1e-12 < few["1"]  # four outputs need four filters
    assert all(parameter.requires_grad for parameter in separated.parameters())


def test_the_bias_stays_and_is_drawn_anew_only_with_random_filters() -> None:
    for filters in (*FITTED, "random"):
        before, after, _ = made(2, filters)
        assert torch.equal(before[0].bias, after[0].pointwise.bias) == (filters != "random")


def test_the_report_says_the_worst_layer() -> None:
    report = SeparateReport("svd", {"a": 0.25, "b": 0.5})
    assert str(report) == "2 convolutions made separable, filters svd: relative error at most 0.5 (b)"
    assert str(SeparateReport("random", {"a": None})) == "1 convolutions made separable, filters random"


def test_a_zero_kernel_has_no_error() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3))
    nn.init.zeros_(model[0].weight)
    assert separate(model, 1, "svd").errors == {"0": 0.0}


def test_a_convolution_in_two_places_stays_one() -> None:
    shared = nn.Conv2d(4, 4, 3, padding=1)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    assert separate(model).names == ("0",)
    assert isinstance(model[0], SeparableConv2d) and model[0] is model[2]


def test_what_cannot_be_separated_is_named_and_nothing_changes() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=2))
    with pytest.raises(PassbandError, match="'1' has 2 groups"):
        separate(model)
    assert type(model[0]) is nn.Conv2d
    with pytest.raises(PassbandError, match="no dense k×k convolution"):
        separate(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)))
    with pytest.raises(PassbandError, match="whole model"):
        separate(nn.Conv2d(4, 4, 3))
    with pytest.raises(PassbandError, match="did you mean 'svd'"):
        separate(model, filters="sdv")  # type: ignore[arg-type]


@pytest.mark.parametrize("filters", FITTED)
def test_a_kernel_that_is_not_finite_is_refused_by_name(filters) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(PassbandError, match="the kernel of '0' holds NaN or infinity"):
        separate(model, 9, filters)
    assert type(model[0]) is nn.Conv2d
