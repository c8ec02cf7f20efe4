"""The nine merged classes: which folders they take, which images, and that the paper's own recipe runs on them."""

from __future__ import annotations

import os
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from passband.core.band import Band
from passband.core.compute import Compute
from passband.core.errors import MissingData
from passband.core.scale import Scale
from passband.data import catalog, decode, restricted_imagenet
from passband.data.catalog import load
from passband.data.dataset import permutation
from passband.data.views import band_limited
from passband.experiments.high_frequency import settings
from passband.train import build
from passband.train.run import train

NAME = "restricted-imagenet"
ENDS = {
    "dog": ("n02085620", "n02113978"),
    "cat": ("n02123045", "n02124075"),
    "frog": ("n01641577", "n01644900"),
    "turtle": ("n01664065", "n01669191"),
    "bird": ("n01795545", "n01860187"),
    "monkey": ("n02480495", "n02494079"),
    "fish": ("n02514041", "n02655020"),
    "crab": ("n01978287", "n01981276"),
    "insect": ("n02165105", "n02268443"),
}
"""The first and the last WordNet id of each class: Chihuahua, Mexican hairless; tabby, Egyptian cat …"""
SIZES = (118, 5, 3, 5, 21, 18, 9, 4, 20)
OTHERS = ("n02114367", "n02119022", "n01632777")
"""Timber wolf and red fox, which come after the dogs, and the axolotl before the frogs."""
REAL = Path(os.environ.get("PASSBAND_DATA", "nowhere")) / "imagenet-samples"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(restricted_imagenet, "PER_CLASS", 2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make an ImageNet of one image for each merged class, as gray as its new class says, and some that are none."""
    for label, ids in enumerate(restricted_imagenet.members().values()):
        file = BytesIO()
        Image.new("RGB", (12, 10), (20 * label, 20 * label, 20 * label)).save(file, "JPEG")
        for one in ids:
            for split in ("train", "val"):
                (tmp_path / "imagenet" / split / one).mkdir(parents=True)
                (tmp_path / "imagenet" / split / one / f"{one}_0.JPEG").write_bytes(file.getvalue())
    for one in OTHERS:
        (tmp_path / "imagenet" / "val" / one).mkdir()
        (tmp_path / "imagenet" / "val" / one / "0.JPEG").write_bytes(b"nobody reads this")
    return tmp_path


def test_the_classes_are_the_published_ranges_of_imagenets_own() -> None:
    members = restricted_imagenet.members()
    assert {name: (ids[0], ids[-1]) for name, ids in members.items()} == ENDS
    assert tuple(map(len, members.values())) == SIZES
    assert not {one for ids in members.values() for one in ids} & set(OTHERS)


def test_every_folder_goes_into_its_class_and_no_other_is_read(root: Path) -> None:
    found = load(NAME, data_dir=root)
    assert found.class_names == tuple(ENDS) and np.bincount(found.labels).tolist() == list(SIZES)
    assert np.abs(found.images - 20 * found.labels[:, None, None, None]).max() <= 1
    of = {one: label for label, ids in enumerate(restricted_imagenet.members().values()) for one in ids}
    assert [of[name.partition("/")[0]] for name in found.ids] == found.labels.tolist()
    assert "203 of ImageNet's classes merged into nine" in found.notes[0] and "118 dog, 5 cat" in found.notes[0]


def test_a_fixed_choice_of_training_images_is_decoded_and_a_limit_takes_fewer(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(catalog, "read_file", lambda path: (read.append(path), decode.read_file(path))[1])
    chosen = load(NAME, "train", data_dir=root)
    assert len(read) == 18 and np.bincount(chosen.labels).tolist() == [2] * 9
    for label, ids in enumerate(restricted_imagenet.members().values()):
        expected = {f"{ids[index]}/{ids[index]}_0.JPEG" for index in permutation(len(ids), 2, 0)}
        assert {name for name, of in zip(chosen.ids, chosen.labels, strict=True) if of == label} == expected
    limited = load(NAME, "train", data_dir=root, limit=4)
    assert len(read) == 22 and limited.ids == chosen.take(4).ids
    assert limited.fingerprint == chosen.take(4).fingerprint != load(NAME, data_dir=root, limit=4).fingerprint


def test_what_is_missing_is_said_in_a_line(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def message(split: catalog.Split, where: Path = root) -> str:
        with pytest.raises(MissingData) as caught:
            load(NAME, split, data_dir=where)
        text = str(caught.value)
        assert caught.value.name == NAME and "\n" not in text and "image-net.org" in text and "--data-dir" in text
        return text

    assert f"203 of them have no folder in {tmp_path / 'none/imagenet/val'}" in message("test", tmp_path / "none")
    lost = root / "imagenet/val/n02123045"
    lost.rename(root / "n02123045")
    assert f"1 of them have no folder in {lost.parent} (the first: n02123045)" in message("test")
    monkeypatch.setattr(restricted_imagenet, "PER_CLASS", 4)
    assert f"takes 4 training images of each class, and {root}/imagenet/train holds 3 of 'frog'" in message("train")


def test_the_papers_own_recipe_builds_its_network_for_nine_classes(root: Path) -> None:
    recipe = settings.training(Scale.FULL, data=NAME, seed=0)
    assert (recipe.model.name, recipe.data.size, recipe.data.part, recipe.epochs) == ("resnet50", 224, None, 50)
    images = build.training_set(recipe.with_settings(["data.size=16"]), root)
    model, _ = build.trainable_model(recipe, build.image_spec(recipe, images))
    assert model.inner.get_classifier().out_features == 9 and model.spec.class_names == tuple(ENDS)
    assert model.spec.size == (224, 224) and model.mean is None


@pytest.mark.slow
def test_the_papers_own_recipe_runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build.test_set
    monkeypatch.setattr(build, "test_set", lambda *arguments: whole(*arguments).take(9))
    recipe = settings.training(Scale.FULL, data=NAME, seed=0, view=settings.band(4, "low"))
    small = recipe.with_settings(["data.size=16", "batch=9", "data.part=9", "epochs=1"])
    run = train(small, compute=Compute(device="cpu"), runs=root / "runs", data_dir=root)
    assert run.metrics["test_images"] == 9 and run.metrics["epochs"] == 1


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason="the ImageNet sample images are not in PASSBAND_DATA/imagenet-samples")
def test_the_sample_images_of_imagenet_are_merged_split_and_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imagenet").mkdir()
    for split in ("train", "val"):
        (tmp_path / "imagenet" / split).symlink_to(REAL / "val")
    found = load(NAME, data_dir=tmp_path, size=(224, 224))
    assert found.images.shape == (203, 224, 224, 3) and np.bincount(found.labels).tolist() == list(SIZES)
    # All 1,000 folders are there, so that a folder's place among them is its class's index.
    index = {one: place for place, one in enumerate(sorted(path.name for path in (REAL / "val").iterdir()))}
    for name, label in zip(found.ids, found.labels, strict=True):
        first, last = restricted_imagenet.RANGES[found.class_names[label]]
        assert first <= index[name.partition("/")[0]] <= last
    few = found.take(6)
    whole = next(iter(few.batches(6)))[0]
    left = [float(whole.std())]
    for radius in settings.radii(NAME):
        bands = (Band.disc(radius), Band.disc(radius).high)
        low, high = (next(iter(band_limited(few, band, "none").batches(6)))[0] for band in bands)
        assert (low + high - whole).abs().max() < 1e-6
        left.append(float(high.std()))
    assert all(less < more for more, less in pairwise(left)) and left[-1] > 0
    monkeypatch.setattr(build, "test_set", lambda *_: found.take(9))
    recipe = settings.training(Scale.FULL, data=NAME, seed=0, view=settings.band(100, "low"))
    run = train(recipe.with_settings(["batch=9", "data.part=9", "epochs=1"]), runs=tmp_path / "runs", data_dir=tmp_path)
    assert run.metrics["test_images"] == 9
