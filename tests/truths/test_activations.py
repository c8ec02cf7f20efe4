"""The ratio R of activations that are known: constant ones, a checkerboard, a mix; and which layer is the first."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from passband.core.errors import NotApplicable, PassbandError
from passband.core.results import Curve
from passband.data.dataset import Batches, ImageSet
from passband.frequency.spectrum import low_to_high, ring_sums
from passband.models.layers import SeparableConv2d
from passband.models.state import batch_statistics
from passband.probes.activations import activations, first_activation

SIDE = 8
BOARD = np.indices((SIDE, SIDE)).sum(0) % 2


def board(light: int, dark: int) -> np.ndarray:
    return np.where(BOARD, light, dark).astype(np.uint8)


def batches(*planes: np.ndarray) -> Batches:
    pixels = np.repeat(np.stack(planes)[..., None], 3, axis=-1)
    return ImageSet("boards", pixels, np.arange(len(planes)) % 2, ("a", "b"), "0" * 64).batches(2)


def network(scales: tuple[float, ...] = (1.0, 1.0, 1.0), *after: nn.Module) -> nn.Sequential:
    """Its activation is the first channel of the image by each scale, as nothing is below zero."""
    convolution = nn.Conv2d(3, len(scales), 3, padding=1, bias=False)
    with torch.no_grad():
        convolution.weight.zero_()
        convolution.weight[:, 0, 1, 1] = torch.tensor(scales)
    parts = (*after, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(len(scales), 2))
    return nn.Sequential(convolution, *parts)


def ratio(*arguments: object, **options: object) -> Curve:
    (found,) = activations(*arguments, **options)
    assert isinstance(found, Curve)
    return found


def per_image(found: Curve, key: str) -> dict[int, float]:
    return dict(zip(found.arrays["images"].tolist(), found.arrays[key][0].tolist(), strict=True))


def test_boards_have_the_ratio_of_their_mean_to_their_contrast() -> None:
    # 0.5 ± 0.5 gives 1; 0.6 ± 0.2 gives 3; constant and black images have no HFI.
    images = batches(board(255, 0), board(204, 102), board(51, 51), board(0, 0))
    found = ratio(network(), images)
    assert found.x.values == ("1",)
    expected = {0: 1.0, 1: 3.0, 2: math.inf, 3: math.inf}
    assert per_image(found, "spatial.clean.running") == pytest.approx(expected, rel=1e-6)
    assert found.series[0].values == pytest.approx((2.0,)) and found.series[0].n == 4
    assert any("2 of 4 activations (spatial) are constant" in note for note in found.notes)
    # All channels are the same, so that over channels nothing is left: no mean, no interval, and no NaN.
    assert found.series[1].values == (None,) and found.series[1].low == (None,)


def test_the_channel_version_means_channels_at_each_position() -> None:
    # Channels of 1, 2, 3 times the image: their mean is 2 three times over, the rest -1, 0, 1.
    found = ratio(network((1.0, 2.0, 3.0)), batches(board(204, 102), board(51, 51)))
    assert per_image(found, "channel.clean.running") == pytest.approx(
        dict.fromkeys((0, 1), math.sqrt(12 / 2)), rel=1e-6
    )
    assert per_image(found, "spatial.clean.running") == pytest.approx({0: 3.0, 1: math.inf}, rel=1e-6)


def test_batch_statistics_are_those_of_the_images_and_running_ones_stay() -> None:
    model = network((1.0, 2.0, 3.0), nn.BatchNorm2d(3, affine=False))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = batches(board(255, 0), board(204, 102))
    found = ratio(model, images, statistics=("running", "batch"))
    assert per_image(found, "spatial.clean.running") == pytest.approx({0: 1.0, 1: 3.0}, rel=1e-4)
    # Normalized, images are ± something, and half of each is cut off: on average 1 against 1, and more below.
    norm = model[1].train()
    pixels = torch.cat([some for some, _ in images])
    normalized = torch.relu(nn.functional.batch_norm(model[0](pixels), None, None, training=True)).flatten(2)
    expected = low_to_high(normalized.detach().transpose(1, 2)).tolist()
    assert per_image(found, "spatial.clean.batch") == pytest.approx(dict(enumerate(expected)), rel=1e-5)
    assert norm.training and not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_attacked_images_are_measured_beside_clean_ones_in_any_batches() -> None:
    torch.manual_seed(0)
    model = network((1.0, 2.0, 3.0)).eval()
    images = batches(*(board(200 - 10 * index, 50) for index in range(5)))
    found, again = (ratio(model, some, attack="pgd", steps=2, layers=("1", "0")) for some in (images, images.cut(5)))
    assert [series.name for series in found.series] == [
        "spatial, clean", "channel, clean", "spatial, pgd", "channel, pgd",
    ]  # fmt: skip
    assert found.x.values == ("1", "0") and "steps=2" in found.how["attack"]
    assert not np.array_equal(found.arrays["spatial.pgd.running"], found.arrays["spatial.clean.running"])
    assert all(np.array_equal(found.arrays[key], again.arrays[key]) for key in found.arrays)


class Functional(nn.Module):
    """Has a convolution, and no activation that is a module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.conv(images)).mean((2, 3))


def test_the_first_activation_is_the_one_that_is_called_first_after_the_first_spatial_convolution() -> None:
    images = torch.rand(2, 3, SIDE, SIDE)

    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.late, self.early = nn.ReLU(), nn.Hardtanh()
            self.point, self.stem = nn.Conv2d(3, 3, 1), SeparableConv2d(3, 4, 3, multiplier=9)
            self.before = nn.GELU()

        def forward(self, images: Tensor) -> Tensor:
            return self.late(self.early(self.stem(self.before(self.point(images))))).mean((2, 3))

    model = Late().eval()
    assert first_activation(model, images) == "early" and not model.training
    with pytest.raises(NotApplicable, match="layers=conv"):
        first_activation(Functional(), images)
    with pytest.raises(NotApplicable, match="larger than 1×1"):
        first_activation(nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()), images)


def test_mistakes_are_one_line() -> None:
    images = batches(board(255, 0), board(204, 102))
    for options, words in (
        ({"layers": ("one",)}, "unknown layer 'one'"),
        ({"layers": ("4",)}, "4 gives \\[2, 2\\]"),
        ({"statistics": ("batch",)}, "this model has none"),
        ({"statistics": ()}, "got none"),
        ({"count": 0}, "count is 1 or more"),
        ({"attack": "pdg"}, "did you mean 'pgd'"),
    ):
        with pytest.raises(PassbandError, match=words) as caught:
            activations(network(), images, **options)
        assert "\n" not in str(caught.value)


def test_what_is_not_finite_is_no_constant_activation() -> None:
    signals = torch.tensor([[[1.0], [1.0]], [[1.0], [math.nan]], [[1.0], [math.inf]]])
    found = low_to_high(signals)
    assert found[0] == math.inf and bool(found[1:].isnan().all())
    model = network()
    with torch.no_grad():
        model[0].weight.fill_(math.nan)
    with pytest.raises(PassbandError, match="layer 1 gives NaN or infinity"):
        ratio(model, batches(board(255, 0)))


def test_batches_are_even_and_none_holds_one_image() -> None:
    images = batches(*(board(200 - 10 * index, 50) for index in range(7)))
    model = nn.Sequential(network()[0], nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3)).eval()
    for batch, sizes in ((2, [2, 3]), (3, [2, 3]), (4, [3, 4]), (7, [7]), (9, [7])):
        found = ratio(model, images, layers=("1",), statistics=("batch",), batch=batch)
        assert found.how["batch"] == sizes and found.arrays["spatial.clean.batch"].shape == (1, 7)
        assert any(f"each batch of {' or '.join(map(str, sizes))}:" in note for note in found.notes)
    with pytest.raises(PassbandError, match="2 images or more; got 1"):
        ratio(model, images, statistics=("batch",), count=1)


def test_a_model_that_always_normalizes_by_the_batch_has_no_running_statistics() -> None:
    model = network((1.0, 2.0, 3.0), nn.BatchNorm2d(3, affine=False))
    images = batches(board(255, 0), board(204, 102))
    expected = per_image(ratio(model, images, statistics=("batch",)), "spatial.clean.batch")
    with batch_statistics(model):
        with pytest.raises(NotApplicable, match="take statistics=batch"):
            activations(model, images)
        assert per_image(ratio(model, images, statistics=("batch",)), "spatial.clean.batch") == expected


def test_a_wrong_layer_is_refused_before_the_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("passband.probes.activations.attacked", lambda *_: pytest.fail("attacked"))
    with pytest.raises(PassbandError, match="unknown layer 'one'"):
        activations(network(), batches(board(255, 0)), layers=("one",), attack="pgd")


def test_rings_hold_every_bin_once() -> None:
    bins, sums = ring_sums(torch.ones(2, 5, 8))
    assert bins.sum() == 40 and bins[0] == 1 and torch.equal(sums, bins.expand(2, -1))
