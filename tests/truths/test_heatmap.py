"""Heat maps that are known on paper: a linear model errs where its weights have the wave, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from passband.core.answer import Answer
from passband.core.errors import NotApplicable, PassbandError
from passband.core.options import parse_options
from passband.core.results import Curve, Map, Result, Scalar
from passband.core.statistics import wilson
from passband.data.dataset import ImageSet
from passband.frequency.basis import basis, half_plane
from passband.models.state import batch_statistics
from passband.probes import PROBES
from passband.probes.heatmap import Wave, drawn_signs, errors, heatmap

SIDE = 8


class Linear(nn.Module):
    """Two logits whose difference is w·x + b."""

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.flatten()), nn.Parameter(torch.tensor(bias))

    def forward(self, images: Tensor) -> Tensor:
        margin = images.flatten(1) @ self.weight + self.bias
        return torch.stack((torch.zeros_like(margin), margin), 1)


def images(count: int = 12, labels: np.ndarray | None = None) -> ImageSet:
    """Nearly gray images, whose pixels no wave of norm 1 takes out of [0, 1]."""
    pixels = np.random.default_rng(0).integers(120, 136, (count, SIDE, SIDE, 3), dtype=np.uint8)
    labels = np.ones(count, np.int64) if labels is None else labels
    return ImageSet("gray", pixels, labels, ("no", "yes"), "0" * 64)


def by_name(results: tuple[Result, ...]) -> dict:
    return {result.name: result for result in results}


def test_a_linear_model_errs_where_the_wave_outweighs_its_margin() -> None:
    weight = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    model, data = Linear(weight, 0.1), images()
    wave, frequencies = Wave(1.0, seed=3), half_plane((SIDE, SIDE))
    found = by_name(heatmap(model, data.batches(5), norm=1.0, seed=3))["heatmap.error"]
    pixels = torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255
    along = torch.einsum("chw,khw->kc", weight, basis(frequencies, (SIDE, SIDE)))
    margins = (pixels.flatten(1) @ weight.flatten() + 0.1)[:, None] + torch.einsum(
        "nkc,kc->nk", drawn_signs(pixels, frequencies, wave), along
    )
    wrong = (margins <= 0).T.numpy()
    assert 0.1 < wrong.mean() < 0.9 and float(margins.abs().min()) > 1e-4
    assert np.array_equal(np.sort(found.arrays["wrong"], axis=1), np.sort(wrong, axis=1))  # in another order of images
    assert np.array_equal(found.arrays["errors"], wrong.sum(1)) and not np.isnan(found.values).any()
    for (ky, kx), errs in zip(frequencies.tolist(), wrong.mean(1), strict=True):
        places = {((sign * ky + 4) % SIDE, (sign * kx + 4) % SIDE) for sign in (1, -1)}
        assert all(found.values[place] == errs for place in places)


def test_what_looks_at_low_frequencies_errs_there_alone() -> None:
    ky, kx = 1, -2
    weight = basis(torch.tensor([[ky, kx]]), (SIDE, SIDE)).expand(3, -1, -1) * 10
    plain = np.random.default_rng(0).integers(100, 156, (200, 1, 1, 3), dtype=np.uint8).repeat(SIDE, 1).repeat(SIDE, 2)
    data = ImageSet("plain", plain, np.ones(200, np.int64), ("no", "yes"), "0" * 64)
    found = by_name(heatmap(Linear(weight, 0.5), data.batches(50), norm=1.0))
    errors_at = found["heatmap.error"].values
    hit = np.zeros((SIDE, SIDE), bool)
    hit[4 + ky, 4 + kx] = hit[4 - ky, 4 - kx] = True
    assert (errors_at[~hit] == 0).all()
    # Three signs of one weight each: more than half negative in half of all draws.
    low, high = wilson(int(errors_at[hit][0] * 200), 200, 0.999)
    assert low < 0.5 < high and errors_at[hit][0] == errors_at[hit][1]
    curve = found["heatmap.by_radius"]
    assert isinstance(curve, Curve) and curve.x.values == (0, 1, 2, 3, 4)
    (line,) = curve.series
    assert [value > 0 for value in line.values] == [False, False, True, False, False] and line.n == 200
    ring = np.hypot(*(np.indices((SIDE, SIDE)) - 4)).round() == 2
    assert line.values[2] == pytest.approx(errors_at[ring].mean()) and line.low[2] < line.values[2] < line.high[2]


def test_one_sign_for_all_channels_leaves_a_gray_image_gray() -> None:
    weight = basis(torch.tensor([[0, 1]]), (SIDE, SIDE)) * torch.tensor([1.0, 1.0, -2.0]).view(3, 1, 1) * 50
    gray = images(40)
    assert (by_name(heatmap(Linear(weight, 0.5), gray.batches(40), norm=1.0))["heatmap.error"].values > 0).any()
    level = by_name(heatmap(Linear(weight, 20.0), gray.batches(40), norm=1.0, signs="image"))["heatmap.error"]
    assert (level.values == 0).all() and "one sign for all channels" in level.notes[0]


def test_signs_are_fair_and_know_neither_batch_nor_order_nor_what_else_is_asked() -> None:
    pixels = torch.from_numpy(images(60).images).permute(0, 3, 1, 2) / 255
    frequencies = half_plane((SIDE, SIDE))
    drawn = drawn_signs(pixels, frequencies, Wave(1.0))
    assert drawn.shape == (60, 34, 3) and bool((drawn.abs() == 1).all()) and abs(float(drawn.mean())) < 0.05
    assert torch.equal(drawn_signs(pixels[7:9], frequencies[5:6], Wave(1.0)), drawn[7:9, 5:6])
    assert torch.equal(drawn_signs(pixels.flip(0), frequencies, Wave(1.0)), drawn.flip(0))
    assert not torch.equal(drawn_signs(pixels, frequencies, Wave(1.0, seed=1)), drawn)
    # Channels, images and frequencies are drawn apart.
    assert all(0.3 < float((drawn[:, :, 0] == drawn[:, :, other]).float().mean()) < 0.7 for other in (1, 2))
    assert 0.3 < float((drawn[1:] == drawn[:-1]).float().mean()) < 0.7
    assert 0.3 < float((drawn[:, 1:] == drawn[:, :-1]).float().mean()) < 0.7


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 2)
    )  # fmt: skip


def noise(count: int = 30) -> ImageSet:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    return ImageSet("noise", pixels, rng.integers(0, 2, count), ("a", "b"), "0" * 64)


def test_pixels_are_clipped_and_batches_change_nothing() -> None:
    model, data, frequencies = network().eval(), noise(), half_plane((SIDE, SIDE))
    wave = Wave(4.0)
    found = errors(model, data.batches(7), frequencies, wave, rows=16)
    pixels = torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255
    signs, waves = drawn_signs(pixels, frequencies, wave), basis(frequencies, (SIDE, SIDE))
    for row in range(len(frequencies)):
        copies = (pixels + 4 * signs[:, row, :, None, None] * waves[row]).clamp(0, 1)
        with torch.no_grad():
            assert np.array_equal(found[row], model(copies).argmax(1).numpy() != data.labels)
    assert np.array_equal(found, errors(model, data.batches(30), frequencies, wave, rows=50))


def test_the_quick_form_is_held_against_the_model_and_the_model_is_left_as_it_was() -> None:
    model, data = network(), noise()
    with torch.no_grad():
        model[5].bias += 8  # of both: where bf16 is coarse
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    exactly, coarse = (by_name(heatmap(model, data.batches(30), precision=one)) for one in ("float32", "bf16"))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    differing = exactly["heatmap.differing"]
    assert isinstance(differing, Scalar) and differing.value == 0 and differing.n == 16 * 30
    places = torch.linspace(0, 33, 16).round().long()
    wrong = [found["heatmap.error"].arrays["wrong"][places] for found in (exactly, coarse)]
    share = coarse["heatmap.differing"].value
    assert share == float((wrong[0] != wrong[1]).mean()) and 0 < share < 0.9
    assert exactly["heatmap.error"].how["speed"]["folded"] == 1 and "bf16" in coarse["heatmap.error"].notes[0]


def test_presets_and_the_central_square() -> None:
    data, model = noise(4), network()
    found = by_name(heatmap(model, data.batches(4), preset="imagenet", size=3))["heatmap.error"]
    assert isinstance(found, Map) and found.values.shape == (3, 3) and found.how["norm"] == 15.7
    assert found.x.values == found.y.values == (-1, 0, 1) and not np.isnan(found.values).any()
    assert len(found.arrays["frequencies"]) == 5 and found.how["size"] == 3
    whole = by_name(heatmap(model, data.batches(4), size=SIDE))["heatmap.error"]
    assert whole.values.shape == (SIDE, SIDE) and (whole.how["preset"], whole.how["norm"]) == ("cifar10", 4.0)
    assert np.array_equal(whole.arrays["frequencies"], half_plane((SIDE, SIDE)).numpy())


def test_without_labels_it_is_disagreement_and_results_go_through_a_folder(tmp_path) -> None:
    model, data = network(), noise(8)
    with torch.no_grad():
        said = model.eval()(torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255).argmax(1)
    own = data.batches(8).with_targets(said, "prediction")
    options = parse_options(PROBES["heatmap"], {"size": "3", "norm": "2", "count": "5"}, owner="probe heatmap")
    Answer({}, heatmap(model, own, **options)).save(tmp_path)
    found = Answer.load(tmp_path)
    assert found["heatmap.clean"].value == 0 and found["heatmap.clean"].n == 5
    assert found["heatmap.by_radius"].y.name.startswith("disagreement with the prediction")


class Counting(Linear):
    """Notes how many images each call holds, and stops at a call of the probe's own size when it is told to."""

    calls: ClassVar[int] = 0
    last: ClassVar[int | None] = None

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > 100:
            if Counting.calls == Counting.last:
                raise KeyboardInterrupt
            Counting.calls += 1
        return super().forward(images)


def test_a_killed_map_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("passband.probes.heatmap._CHUNK", 9)
    monkeypatch.setattr("passband.probes.heatmap._PIXELS", {"cpu": 128 * SIDE**2})
    model, data = Counting(torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)), 0.1), images()

    def asked(folder: Path | None, last: int | None = None, **options: Any) -> tuple[int, np.ndarray | None]:
        Counting.calls, Counting.last = 0, last
        try:
            found = by_name(heatmap(model, data.batches(5), resume=folder, **options))
        except KeyboardInterrupt:
            return Counting.calls, None
        return Counting.calls, found["heatmap.error"].arrays["wrong"]

    whole, expected = asked(None, norm=1.0)
    # 4 chunks of frequencies with 3 batches of images, then 2 chunks with each for the model itself.
    assert whole == 12 + 6
    assert asked(tmp_path, last=7, norm=1.0) == (7, None)
    again, found = asked(tmp_path, norm=1.0)
    assert again == whole - 7 and np.array_equal(found, expected)
    # What decides a verdict decides what is taken from the folder.
    for changed in ({"norm": 2.0}, {"norm": 1.0, "seed": 1}, {"norm": 1.0, "precision": "bf16"}):
        assert asked(tmp_path, **changed)[0] == whole
    with torch.no_grad():
        model.bias += 0.5
    assert asked(tmp_path, norm=1.0)[0] == whole


def test_mistakes_are_one_line() -> None:
    data, model = noise(4), network()
    for call, words in (
        (lambda: heatmap(model, data.batches(4), norm=0.0), "norm is above 0"),
        (lambda: heatmap(model, data.batches(4), count=0), "count is 1 or more"),
        (lambda: heatmap(model, data.batches(4), size=4), "odd number"),
        (lambda: parse_options(heatmap, {"preset": "cifar"}, owner="probe heatmap"), "preset cannot be 'cifar'"),
        (lambda: heatmap(model, images(4, np.full(4, 1)).batches(4).with_targets(torch.full((4,), -1), "label")), "no"),
    ):
        with pytest.raises(PassbandError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
    with batch_statistics(model), pytest.raises(NotApplicable, match="do not depend on the batch"):
        heatmap(model, data.batches(4))
