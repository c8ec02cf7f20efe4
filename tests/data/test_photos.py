"""The built-in set: fixed, balanced, and told apart by structure alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from passband.core.errors import PassbandError
from passband.data import photos as module
from passband.data.photos import CONTRAST, COUNTS, FILES, SIDE, photos

TRAIN = "2994df2481bff9e3c90ac393a4ac2e3683e7be167acbfcba3adca44c567267b6"
TEST = "6cf24674d46eab5ec31db46cccb98b7243bcdd52a4660f0dbdeaed8ba17196f2"


def test_it_is_the_same_everywhere_and_balanced() -> None:
    train, test = photos("train"), photos("test")
    assert (train.fingerprint, test.fingerprint) == (TRAIN, TEST)
    assert len(FILES) >= 12
    assert train.labels is not None and set(np.bincount(train.labels)) == {COUNTS["train"]}
    assert test.labels is not None and set(np.bincount(test.labels)) == {COUNTS["test"]}
    assert (train.images[..., :1] == train.images).all()


@pytest.mark.parametrize("split", ["train", "test"])
def test_mean_and_contrast_are_equal_up_to_rounding(split: module.Split) -> None:
    pixels = photos(split).images[..., 0] / 255
    assert np.abs(pixels.mean((1, 2)) - 0.5).max() < 0.5 / 255  # half a step: what rounding alone can do
    assert np.abs(pixels.std((1, 2)) - CONTRAST).max() < 0.5 / 255


def test_train_and_test_rows_do_not_touch() -> None:
    for height in (191, 512, 1411):
        used = {split: {t + r for t in module._tops(height, split) for r in range(SIDE)} for split in COUNTS}
        assert max(used["train"] | used["test"]) < height
        assert min(abs(a - b) for a in used["train"] for b in used["test"]) > SIDE // 4


def test_a_patch_is_a_piece_of_its_photograph() -> None:
    patch = photos("train").images[0, ..., 0].astype(float)
    folder = Path(skimage.__file__).parent / "data"
    with Image.open(folder / FILES[0]) as image:
        photo = np.asarray(image.convert("L"), dtype=float)[:SIDE]
    windows = np.lib.stride_tricks.sliding_window_view(photo, (SIDE, SIDE))[0]
    likeness = [np.corrcoef(patch.ravel(), window.ravel())[0, 1] for window in windows[::8] if window.std() > 6]
    assert max(likeness) > 0.999


def test_mean_and_contrast_tell_nothing_where_raw_colors_tell_a_lot() -> None:
    statistics = {split: _statistics(photos(split).images) for split in ("train", "test")}
    labels = {split: torch.from_numpy(np.array(photos(split).labels)) for split in ("train", "test")}
    accuracy = _linear(statistics["train"], labels["train"], statistics["test"], labels["test"])
    chance = 1 / len(FILES)
    assert accuracy < chance + 4 * (chance * (1 - chance) / len(photos("test"))) ** 0.5

    raw = {split: _raw_colors(split) for split in ("train", "test")}
    assert _linear(*raw["train"], *raw["test"]) > 0.4  # eight classes: chance is 0.125


def test_a_wheel_without_photographs_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILES", ("not_there.png",))
    with pytest.raises(PassbandError, match=r"not_there.png .* install it again"):
        photos.__wrapped__("test")


def _statistics(images: np.ndarray) -> Tensor:
    pixels = torch.from_numpy(images / 255).float()
    return torch.cat([pixels.mean((1, 2)), pixels.std((1, 2))], 1)


def _raw_colors(split: module.Split) -> tuple[Tensor, Tensor]:
    """Cut patches from the same rows of the color photographs, as they are."""
    found, labels = [], []
    for name in FILES:
        with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
            photo = np.asarray(image)
        if photo.ndim != 3:
            continue
        tops = list(module._tops(photo.shape[0], split))[::3]
        rows = [photo[t : t + SIDE, x : x + SIDE] for t in tops for x in range(0, photo.shape[1] - SIDE, SIDE)]
        rows = rows[:: max(1, len(rows) // COUNTS[split])]
        found.append(np.stack(rows))
        labels += [len(found) - 1] * len(rows)
    assert len(found) == 8
    return _statistics(np.concatenate(found)), torch.tensor(labels)


def _linear(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor) -> float:
    """Return the test accuracy of a logistic regression on standardized features."""
    mean, spread = x.mean(0), x.std(0).clamp_min(1e-6)
    x, x_test = (x - mean) / spread, (x_test - mean) / spread
    weight = torch.zeros(x.shape[1] + 1, int(y.max()) + 1, requires_grad=True)
    x, x_test = F.pad(x, (0, 1), value=1.0), F.pad(x_test, (0, 1), value=1.0)
    search = torch.optim.LBFGS([weight], max_iter=40)

    def loss() -> Tensor:
        search.zero_grad()
        value = F.cross_entropy(x @ weight, y) + 1e-4 * weight.square().sum()
        value.backward()
        return value

    search.step(loss)
    return float(((x_test @ weight).argmax(1) == y_test).float().mean())
