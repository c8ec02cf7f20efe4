"""The probe `disagreement` on detectors whose answers and distances are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from passband.core.band import Band
from passband.core.errors import PassbandError
from passband.core.options import parse_options
from passband.core.results import Curve
from passband.data.dataset import Batches, ImageSet
from passband.frequency.filters import low, rescale
from passband.probes import PROBES
from passband.tasks.classification import wilson

disagreement = PROBES["disagreement"]
SIDE, CYCLES, COUNT = 32, 6, 40


class Detector(nn.Module):
    """Answer 1 where an image holds a horizontal wave of `CYCLES` cycles, else 0."""

    def forward(self, images: Tensor) -> Tensor:
        wave = torch.fft.rfft2(images.mean(1))[:, 0, CYCLES].abs().square() / SIDE**4
        return torch.stack([torch.full_like(wave, 1e-3), wave], dim=1)


def gratings(wrong: int = 0) -> ImageSet:
    """Half of the images hold the wave along x (class 1), half along y (class 0); the first few labels are wrong."""
    phases = np.random.default_rng(0).uniform(0, 2 * np.pi, COUNT)
    waves = 0.5 + 0.4 * np.cos(2 * np.pi * CYCLES * np.arange(SIDE) / SIDE + phases[:, None])
    labels = np.arange(COUNT) % 2
    along_x = np.broadcast_to(waves[:, None, :], (COUNT, SIDE, SIDE))
    planes = np.where(labels[:, None, None] == 1, along_x, along_x.transpose(0, 2, 1))
    pixels = np.repeat((planes * 255).round().astype(np.uint8)[..., None], 3, axis=-1)
    labels[:wrong] = 1 - labels[:wrong]
    return ImageSet("gratings", pixels, labels, ("no", "yes"), "0" * 64)


def curves(batches: Batches, **options: object) -> dict[str, Curve]:
    found = {
        result.name.removeprefix("disagreement."): result for result in disagreement(Detector(), batches, **options)
    }
    assert list(found) == ["share", "linf", "l2"] and all(isinstance(one, Curve) for one in found.values())
    return found


def lines(curve: Curve) -> dict[str, tuple]:
    return {series.name: series.values for series in curve.series}


@pytest.mark.parametrize(("edge", "first_kept"), [("inclusive", 6), ("exclusive", 7)])
def test_answers_change_where_the_wave_goes(edge: str, first_kept: int) -> None:
    # Four labels are wrong, two of each class: of 36 images that are right, 18 lose their wave.
    found = curves(gratings(wrong=4).batches(16), radii=(7.0, 5.0, 6.0), edge=edge)
    share = found["share"]
    assert share.x.values == (5, 6, 7)
    gone = [radius < first_kept for radius in (5, 6, 7)]
    assert lines(share) == {
        "all images": tuple(0.5 * one for one in gone), "answered rightly untouched": tuple(0.5 * one for one in gone),
    }  # fmt: skip
    whole, right = share.series
    assert (whole.n, right.n) == (40, 36)
    assert (right.low[0], right.high[0]) == wilson(18, 36)
    assert share.arrays["differs"].sum(1).tolist() == [20 * one for one in gone]
    assert share.arrays["correct"].sum() == 36


def test_the_distance_is_that_of_the_wave() -> None:
    found = curves(gratings(wrong=4).batches(16), radii=(5.0, 16.0), quantiles=(0.0, 0.5))
    l2, linf = (lines(found[norm]) for norm in ("l2", "linf"))
    assert list(l2) == ["mean", "0% quantile", "median", "mean, all images"]
    for name, values in l2.items():
        assert values[0] == pytest.approx(0.4 * (3 * SIDE**2 / 2) ** 0.5, rel=0.01), name
    assert linf["mean"][0] == pytest.approx(0.4, abs=0.02)
    # Where no answer changes there is no such image; all images keep their distance, which is that of rounding pixels.
    assert l2["mean"][1] is None and l2["mean, all images"][1] < 0.1
    assert "18 at 5, 0 at 16" in found["l2"].notes[0]


def test_distances_are_to_the_copy_that_the_model_sees() -> None:
    rng = np.random.default_rng(0)
    data = ImageSet(
        "noise", rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8), np.zeros(6, int), ("a", "b"), "0" * 64
    )
    pixels = torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255
    for how in ("none", "clip", "max"):
        change = (rescale(low(pixels, Band.disc(5)), how) - pixels).flatten(1)
        found = curves(data.batches(4), radii=(5.0,), rescale=how)
        np.testing.assert_allclose(found["l2"].arrays["distance"][0], change.norm(dim=1), rtol=1e-5)
        np.testing.assert_allclose(found["linf"].arrays["distance"][0], change.abs().amax(1), rtol=1e-5)


def test_without_labels_both_lines_are_one() -> None:
    data = gratings()
    own = data.batches(16).with_targets(torch.from_numpy(data.labels), "prediction")
    share = curves(own, radii=(5.0,))["share"]
    assert share.series[0].values == share.series[1].values and "both lines are one" in share.notes[1]


def test_options_come_as_strings_and_mistakes_are_one_line() -> None:
    options = parse_options(disagreement, {"radii": "5,7", "quantiles": "0.1"}, owner="probe disagreement")
    assert curves(gratings().batches(16), **options)["share"].x.values == (5, 7)
    unlabeled = ImageSet("bare", gratings().images, None, (), "0" * 64)
    for data, given, words in (
        (gratings(), {"radii": ()}, "radii needs at least one"),
        (gratings(), {"quantiles": (2.0,)}, "quantiles lie from 0 to 1"),
        (unlabeled, {}, "no labels"),
    ):
        with pytest.raises(PassbandError, match=words) as caught:
            curves(data.batches(16), **given)
        assert "\n" not in str(caught.value)
