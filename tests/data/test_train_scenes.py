"""The training sampler of scenes: every step can be repeated, by whoever serves it."""

from __future__ import annotations

import pickle
from functools import partial

import numpy as np
import pytest
import torch

from passband.core.errors import PassbandError
from passband.data import train_scenes
from passband.data.objects import Objects
from passband.data.scene_augment import scene_augment
from passband.data.scenes import SceneSet
from passband.data.train_scenes import TrainScenes

SIZES = ((40, 48), (64, 40), (48, 48), (40, 64), (56, 56))
AUGMENT = [{"name": "iou-crop", "chance": 0.5}, {"name": "flip"}]


def _pixels(sizes: tuple[tuple[int, int], ...], name: str) -> np.ndarray:
    place = int(name)
    return np.random.default_rng(place).integers(0, 256, (*sizes[place], 3), dtype=np.uint8)


def scenes() -> SceneSet:
    objects = []
    for place, (height, width) in enumerate(SIZES):
        boxes = torch.tensor([[2.0, 4.0, width / 2, height / 2], [8.0, 8.0, width - 2.0, height - 4.0]])[: place % 3]
        number = len(boxes)
        no = torch.zeros(number, dtype=torch.bool)
        objects.append(Objects(boxes, torch.arange(number), no, torch.full((number,), 99.0)))
    names = tuple(str(place) for place in range(len(SIZES)))
    return SceneSet("few", names, SIZES, tuple(objects), partial(_pixels, SIZES), ("a", "b"), "0" * 64)


def served(seed: int = 0, batch: int = 2, epoch: int = 0, start: int = 0, more: list[dict] | None = None) -> list:
    sampler = TrainScenes(scenes(), batch, scene_augment([*AUGMENT, *(more or [])], 32), seed)
    steps = list(sampler.epoch(epoch, start))
    assert len(steps) == len(sampler) - start
    return steps


def equal(one: list, other: list) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b)
        and all(torch.equal(x.boxes, y.boxes) and torch.equal(x.labels, y.labels) for x, y in zip(s, t, strict=True))
        for (a, s), (b, t) in zip(one, other, strict=True)
    )


def test_steps_hold_images_in_unit_range_at_one_size_with_their_objects() -> None:
    steps = served()
    assert [len(images) for images, _ in steps] == [2, 2]  # a single one left over is not served
    for images, targets in steps:
        assert images.shape[1:] == (3, 32, 32) and images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert float(images.min()) >= 0 and 0.5 < float(images.max()) <= 1 and len(targets) == len(images)
        assert all(bool(((one.boxes >= 0) & (one.boxes <= 32)).all()) for one in targets)
    assert [len(images) for images, _ in served(batch=3)] == [3, 2]


def test_every_step_can_be_repeated_from_anywhere() -> None:
    whole = served()
    assert equal(served(start=1), whole[1:]) and served(start=2) == []
    assert equal(served(), whole)
    assert not equal(served(epoch=1), whole) and not equal(served(seed=1), whole)


def test_an_images_augmentation_depends_on_its_place_alone() -> None:
    """Whatever else is in its step: batches of two and of five hold the same images."""
    small, large = served(batch=2), served(batch=5)
    images = torch.cat([images for images, _ in small])
    assert torch.equal(images, large[0][0][:4])


def test_helpers_serve_the_same(monkeypatch) -> None:
    assert pickle.loads(pickle.dumps(scenes().read))("1").shape == (64, 40, 3)  # helpers are sent it
    alone = served()
    monkeypatch.setattr(train_scenes, "FEW", 1)
    for helpers in (1, 2):
        monkeypatch.setattr(train_scenes, "HELPERS", helpers)
        assert equal(served(), alone)


def test_the_callers_random_numbers_stay_as_they_were() -> None:
    torch.manual_seed(4)
    before = torch.get_rng_state()
    served(more=[{"name": "multi-scale", "sizes": [32, 64]}])
    assert torch.equal(torch.get_rng_state(), before)


def test_whole_batches_change_their_size_and_boxes_with_them() -> None:
    more = [{"name": "multi-scale", "sizes": [32, 64, 96]}]
    seen = set()
    for epoch in range(3):
        base = served(epoch=epoch)
        for (images, targets), (there, known) in zip(served(epoch=epoch, more=more), base, strict=True):
            side = images.shape[-1]
            seen.add(side)
            assert images.shape[-2:] == (side, side)
            assert torch.equal(images[:, :, :: side // 32, :: side // 32], there)  # nearest
            for one, other in zip(targets, known, strict=True):
                torch.testing.assert_close(one.boxes, other.boxes * (side / 32))
    assert len(seen) > 1 and seen <= {32, 64, 96}
    assert equal(served(more=more, start=1), served(more=more)[1:])


@pytest.mark.parametrize(("batch", "count"), [(1, 5), (2, 1)])
def test_a_step_holds_two_images(batch, count) -> None:
    with pytest.raises(PassbandError, match="at least two images"):
        TrainScenes(scenes().subset(range(count)), batch, scene_augment([], 32))
