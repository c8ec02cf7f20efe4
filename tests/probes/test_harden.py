"""The probe `harden` on models whose answer is known on paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from passband.core.errors import NotApplicable, PassbandError
from passband.core.results import Curve, Table
from passband.core.spec import ImageSpec
from passband.data.dataset import Batches, ImageSet
from passband.models.low_pass import LowPass
from passband.models.wrap import Classifier
from passband.probes.harden import harden, to_try
from passband.probes.tried import Tried, frontier, judged, paired

SIDE = 8
SPEC = ImageSpec((SIDE, SIDE), None, None, "pixels", 2)
LEVELS = np.array([110, 112, 114, 116, 118, 119, 120, 122, 133, 135, 136, 137, 139, 141, 143, 145])
"""Gray levels of flat images, dark ones first; the threshold is 127.5."""


def batches() -> Batches:
    pixels = np.broadcast_to(LEVELS[:, None, None, None], (16, SIDE, SIDE, 3)).astype(np.uint8)
    return ImageSet("flat", pixels, (LEVELS > 127).astype(np.int64), ("dark", "bright"), "f").batches(5)


class Checkered(nn.Module):
    """Judge brightness, and a checkerboard a hundred times as much: no flat image holds one, an attack adds it."""

    def forward(self, images: Tensor) -> Tensor:
        board = torch.ones(SIDE, SIDE).cumsum(0).cumsum(1)
        signs = 1 - 2 * ((torch.arange(SIDE)[:, None] + torch.arange(SIDE)) % 2).to(board)
        margin = images.mean((1, 2, 3)) - 0.5 + 100 * (images * signs).mean((1, 2, 3))
        return torch.stack((-margin, margin), 1)


class Confident(nn.Module):
    """Judge brightness by a constant kernel, so surely that a gain of nine leaves no gradient in float32."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3, padding=1, padding_mode="replicate", bias=False)
        nn.init.constant_(self.conv.weight, gain / 27)

    def forward(self, images: Tensor) -> Tensor:
        margin = self.conv(images - 0.5).mean((1, 2, 3))
        return torch.stack((-margin, margin), 1)


def rows(table: object) -> list[dict]:
    assert isinstance(table, Table)
    return [dict(zip([column.name for column in table.columns], row, strict=True)) for row in table.rows]


def test_a_low_pass_helps_where_only_a_checkerboard_was_attacked() -> None:
    table, curve = harden(
        Classifier(Checkered(), SPEC), batches(), eps=2 / 255, edits=("low-pass-input",), strengths=(4,), queries=50
    )
    base, low = rows(table)
    assert base["edit"] == "unedited" and base["strength"] is None and base["clean"] == 1.0 and base["robust"] == 0.0
    assert low["clean"] == 1.0 and low["robust"] == 1.0 and low["judged"] == "more robust"
    assert low["on the frontier"] == "yes" and base["on the frontier"] == "no"
    assert np.array_equal(table.arrays["low-pass-input=4.pgd"], np.ones(16, bool))
    assert isinstance(curve, Curve) and {line.name for line in curve.series} == {"unedited", "low-pass-input"}


def test_an_edit_that_only_hides_gradients_is_said_to() -> None:
    # The logits lie 30 to 95 apart, nine times as far once smoothed: beyond 104, e to minus that is 0 in float32.
    model = Classifier(Confident(gain=690.0), SPEC)
    found = harden(model, batches(), eps=20 / 255, edits=("smooth-first",), strengths=(1.0,), queries=200)
    base, smoothed = rows(found[0])
    assert base["under PGD"] == base["zero gradients"] == 0.0
    assert smoothed["zero gradients"] == 1.0 and smoothed["under PGD"] == 1.0
    assert smoothed["Square broke"] > 0 and smoothed["of"] == 16
    assert smoothed["judged"] == "only hides gradients"
    assert "Only hides gradients, and is no defense: smooth-first=1." in found[0].notes
    same = rows(harden(model, batches(), eps=20 / 255, edits=("smooth-first-normalized",), strengths=(1.0,))[0])[1]
    assert same["robust"] == 0.0 and same["judged"] == "undecided"


def tried(pgd: list[int], worst: list[int], edit: str = "smooth-first", silent: int = 0) -> Tried:
    stands = np.array(pgd, dtype=bool)
    quiet = np.arange(len(pgd)) < silent
    return Tried(edit, 1.0, stands, stands, stands, np.array(worst, dtype=bool), quiet)


def test_it_is_judged_by_all_attacks_on_the_same_images() -> None:
    base = tried([0] * 40, [0] * 20, "unedited")
    assert judged(base, base, 1) == ""
    assert judged(tried([1] * 40, [1] * 20), base, 1) == "more robust"
    assert judged(tried([1] * 40, [0] * 20), base, 1) == "only hides gradients"
    assert judged(tried([1] * 40, [1] * 20, silent=40), base, 1) == "only hides gradients"
    assert judged(tried([0] * 40, [0] * 20), tried([1] * 40, [1] * 20, "unedited"), 1) == "not more robust"
    assert judged(tried([1] + [0] * 39, [1] + [0] * 19), base, 1) == "undecided"


def test_an_interval_holds_for_all_edits_at_once() -> None:
    base = tried([0] * 40, [0] * 20, "unedited")
    some = tried([1] * 8 + [0] * 32, [1] * 8 + [0] * 12)
    assert judged(some, base, 1) == "more robust"
    assert judged(some, base, 10**6) == "undecided"


def test_the_paired_interval_is_agresti_and_mins() -> None:
    ours, theirs = np.array([1] * 9 + [0] * 11, bool), np.array([0] * 6 + [1] * 3 + [1] * 1 + [0] * 10, bool)
    # 6 gained, 1 lost of 20, half a count more in each cell: (6.5 - 1.5) / 22 and its deviation.
    middle, deviation = 5 / 22, (8 - 25 / 22) ** 0.5 / 22
    low, high = paired(ours, theirs, 0.95)
    assert (low, high) == pytest.approx((middle - 1.959964 * deviation, middle + 1.959964 * deviation))


def test_what_only_hides_gradients_is_not_on_the_frontier() -> None:
    base = tried([0] * 40, [0] * 20, "unedited")
    assert frontier([base, tried([1] * 40, [0] * 20), tried([1] * 40, [1] * 20, silent=40)]) == [True, False, False]


def test_what_a_model_lacks_is_left_out_unless_it_is_asked_for() -> None:
    model = Classifier(Confident(gain=1.0), SPEC)
    assert {name for name, _ in to_try(model, None, None)} == {
        "smooth-first", "smooth-first-normalized", "low-pass-input",
    }  # fmt: skip
    with pytest.raises(NotApplicable, match="no depthwise convolution"):
        harden(model, batches(), edits=("smooth-depthwise",))
    assert model.inner.conv.weight[0, 0, 0, 0].item() == pytest.approx(1 / 27)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 4.0}, "eps lies above 0 and up to 1"),
        ({"queried": 0}, "queried is 1 or more; got 0"),
        ({"edits": ("smooth-frist",)}, "did you mean 'smooth-first'"),
        ({"strengths": (1.0,)}, "name that edit"),
        ({"edits": ("low-pass-input",), "strengths": (40.0,)}, "a low-pass of degree 40 keeps all of 8 pixels"),
    ],
)
def test_mistakes_are_told(options: dict, message: str) -> None:
    with pytest.raises(PassbandError, match=message):
        harden(Classifier(Confident(gain=1.0), SPEC), batches(), **options)


def test_the_low_pass_keeps_the_mean_and_drops_the_checkerboard() -> None:
    images = torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64)
    kept = LowPass(4)(images)
    torch.testing.assert_close(kept.mean((2, 3)), images.mean((2, 3)))
    spectrum = torch.fft.fft2(kept).abs()
    assert float(spectrum[..., 2:7, :].max()) < 1e-12 < float(torch.fft.fft2(images).abs()[..., 2:7, :].max())
    with pytest.raises(PassbandError, match="1 bin or more; got degree 0"):
        LowPass(0)
