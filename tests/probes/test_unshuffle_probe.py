from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor, nn

from passband.core.errors import NotApplicable, PassbandError
from passband.core.results import Gallery, Result, Scalar
from passband.data.dataset import Batches, ImageSet
from passband.models.create import create
from passband.probes.unshuffle import unshuffle
from passband.sweeps.probing import probe
from passband.sweeps.resolve import Subject
from passband.tasks.unshuffle import pixel_order, shuffle


class Inverse(nn.Module):
    """Undo a permutation and add a constant."""

    def __init__(self, seed: int = 0, added: float = 0.0) -> None:
        super().__init__()
        self.back, self.added = pixel_order((6, 4), seed).argsort(), added

    def forward(self, images: Tensor) -> Tensor:
        return shuffle(images, self.back) + self.added


def batches(count: int = 5, size: int = 2) -> Batches:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 6, 4, 3), dtype=np.uint8)
    return ImageSet("noise", pixels, None, (), "mark").batches(size)


def measured(*arguments, **options) -> tuple[Scalar, Scalar, tuple[Result, ...]]:
    psnr, mean, *rest = unshuffle(*arguments, **options)
    assert isinstance(psnr, Scalar) and isinstance(mean, Scalar)
    return psnr, mean, tuple(rest)


def test_a_known_error_has_its_psnr_on_every_image_and_batches_change_nothing() -> None:
    psnr, mean, _ = measured(Inverse(added=0.1), batches())
    assert psnr.value == pytest.approx(20.0, abs=1e-4) and psnr.unit == "dB" and psnr.n == 5
    assert psnr.arrays["psnr"] == pytest.approx(np.full(5, 20.0), abs=1e-4)
    assert psnr.low == pytest.approx(20.0, abs=1e-3) and psnr.high == pytest.approx(20.0, abs=1e-3)
    other, same, _ = measured(Inverse(added=0.1), batches(size=5))
    assert other.value == pytest.approx(psnr.value) and same.value == pytest.approx(mean.value)
    # The mean of five images lies 4/5 of the pixels' variance, (1 - 1/256²) · 256²/255² / 12, away from each.
    assert mean.value == pytest.approx(-10 * np.log10(0.8 / 12), abs=0.7)


def test_another_permutation_is_another_question() -> None:
    assert measured(Inverse(seed=3), batches(), permutation=3)[0].value > 140
    assert measured(Inverse(seed=3), batches())[0].value < 20


def test_the_gallery_shows_each_image_shuffled_and_restored() -> None:
    given = batches()
    psnr, _, (gallery,) = measured(Inverse(), given, examples=3)
    assert isinstance(gallery, Gallery) and len(gallery.pictures) == 3
    pixels = given.dataset.images[2]
    strip = gallery.pictures[2].image
    assert strip.shape == (6, 12, 3)
    assert np.array_equal(strip[:, :4], pixels) and np.array_equal(strip[:, 8:], pixels)
    shuffled = pixels.reshape(24, 3)[pixel_order((6, 4)).numpy()].reshape(6, 4, 3)
    assert np.array_equal(strip[:, 4:8], shuffled) and not np.array_equal(shuffled, pixels)
    assert gallery.pictures[2].caption == f"PSNR {psnr.arrays['psnr'][2]:.1f} dB"
    assert not measured(Inverse(), given, examples=0)[2]
    assert len(measured(Inverse(), given, examples=50)[2][0].pictures) == 5


def test_the_model_is_left_in_its_mode() -> None:
    model = Inverse().train()
    measured(model, batches())
    assert model.training


def test_what_it_cannot_ask_is_said_in_one_line() -> None:
    with pytest.raises(NotApplicable, match=r"gives images \[2, 3, 6, 4\] .* this one gives \[2, 72\]"):
        unshuffle(nn.Flatten(), batches())
    for options in ({"examples": -1}, {"permutation": -1}):
        with pytest.raises(PassbandError, match="are 0 or more; got"):
            unshuffle(Inverse(), batches(), **options)


def test_of_a_model_that_gives_images_the_usual_probes_say_which_of_them_need_logits(tmp_path) -> None:
    model = create("conv_mixer_pixels", size=8, gives="images", width=4, depth=1, kernel=3)
    asked = Subject.of("pixels", model.eval())
    answer = probe(asked, "photos", limit=4, out=tmp_path / "usual")
    left = [note for note in answer.head["notes"] if "was left out" in note]
    assert [note.split()[0] for note in left] == ["bands", "robustness"]
    assert all("one that gives images has no logits to measure" in note for note in left)
    assert {result.name.split(".")[0] for result in answer.results} == {"kernels", "envelope"}
    with pytest.raises(NotApplicable, match="has no logits to measure"):
        probe(asked, "photos", only="bands", limit=4, out=tmp_path / "asked")
    (psnr, *_) = probe(asked, "photos", only="unshuffle", limit=4, out=tmp_path / "asked").results
    assert isinstance(psnr, Scalar) and psnr.n == 4 and psnr.how["permutation"] == 0
