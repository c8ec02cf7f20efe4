"""Sets by name: folders, sizes, the decode cache, and every kind of data that is not as it should be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image

from passband.core.errors import MissingData, PassbandError
from passband.core.spec import ImageSpec
from passband.data import catalog, cifar10_jpeg, decode, readers
from passband.data.catalog import load

CLASSES = ("cat", "dog")
REAL = os.environ.get("PASSBAND_DATA")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PASSBAND_DATA", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make train/ and val/ with three noise images of 12×10 pixels in each of two classes."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in CLASSES:
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i in range(3):
                pixels = random.integers(0, 256, (12, 10, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "set" / split / name / f"{i}.jpg")
    return tmp_path / "set"


def pil(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_folder_gives_what_pil_gives_sorted_by_class(folder: Path) -> None:
    found = load(f"folder:{folder}", "test")
    assert found.ids == tuple(f"{name}/{i}.jpg" for name in CLASSES for i in range(3))
    assert found.labels is not None and found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.class_names == CLASSES and found.notes == ()
    assert np.array_equal(found.images, np.stack([pil(folder / "val" / name) for name in found.ids]))
    assert not np.array_equal(load(f"folder:{folder}", "train").images, found.images)


def test_images_are_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(f"folder:{folder}")
    monkeypatch.setattr(catalog, "read_file", None)  # a second reading would fail
    second = load(f"folder:{folder}")
    assert isinstance(second.images, np.memmap) and np.array_equal(first.images, second.images)
    monkeypatch.undo()


def test_a_changed_file_is_decoded_again(folder: Path) -> None:
    before = load(f"folder:{folder}")
    target = folder / "val" / "cat" / "0.jpg"
    Image.new("RGB", (10, 12), "white").save(target)
    after = load(f"folder:{folder}")
    assert after.images[0].min() == 255 and np.array_equal(after.images[1:], before.images[1:])
    assert after.fingerprint != before.fingerprint


def test_a_fingerprint_knows_no_path_but_the_names(folder: Path, tmp_path: Path) -> None:
    mark = load(f"folder:{folder}").fingerprint
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert load(f"folder:{tmp_path / 'elsewhere'}").fingerprint == mark
    (tmp_path / "elsewhere/val/cat/0.jpg").rename(tmp_path / "elsewhere/val/cat/00.jpg")
    assert load(f"folder:{tmp_path / 'elsewhere'}").fingerprint != mark
    assert load(f"folder:{folder}", size=(32, 32)).fingerprint != mark


def test_a_limit_decodes_only_its_images_and_equals_take(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load(f"folder:{folder}").take(4, seed=5)
    read: list[Path] = []
    monkeypatch.setattr(catalog, "read_file", lambda path: (read.append(path), decode.read_file(path))[1])
    limited = load(f"folder:{folder}", limit=4, seed=5)
    assert len(read) == 4
    assert (limited.ids, limited.fingerprint) == (whole.ids, whole.fingerprint)
    assert np.array_equal(limited.images, whole.images) and np.array_equal(limited.labels, whole.labels)


def test_small_images_are_padded_evenly_and_large_ones_go_timm_s_way(folder: Path) -> None:
    plain = load(f"folder:{folder}").images
    padded = load(f"folder:{folder}", size=(32, 32)).images
    assert np.array_equal(padded[:, 10:22, 11:21], plain)
    assert padded.sum(dtype=np.int64) == plain.sum(dtype=np.int64)
    spec = ImageSpec((8, 8), None, None, "test", 2, crop_pct=0.5, interpolation="bilinear")
    transform = timm.data.create_transform((3, 8, 8), interpolation="bilinear", crop_pct=0.5, mean=0.0, std=1.0)
    for given in (load(f"folder:{folder}", spec=spec), load(f"images:{folder / 'val/cat'}", spec=spec)):
        with Image.open(folder / "val/cat/0.jpg") as image:
            assert torch.equal(next(iter(given.batches(1)))[0][0], transform(image.convert("RGB")))


def test_a_flat_folder_has_no_labels(folder: Path) -> None:
    flat = load(f"images:{folder / 'val/cat'}")
    assert flat.labels is None and flat.class_names == () and flat.ids == ("0.jpg", "1.jpg", "2.jpg")


def test_gray_and_transparent_files_become_rgb_and_are_noted(folder: Path) -> None:
    gray = np.arange(120, dtype=np.uint8).reshape(12, 10)
    Image.fromarray(gray).save(folder / "val/cat/0.png")
    clear = np.zeros((12, 10, 4), np.uint8)
    clear[..., 0] = 200
    Image.fromarray(clear).save(folder / "val/cat/1.png")
    found = load(f"folder:{folder}")
    at = {name: image for name, image in zip(found.ids, found.images, strict=True)}
    assert np.array_equal(at["cat/0.png"], np.repeat(gray[..., None], 3, 2))
    assert (at["cat/1.png"] == [200, 0, 0]).all()
    assert "1 of 8 images are gray" in found.notes[0] and "1 of 8 images have transparency" in found.notes[1]


def corrupt(path: Path) -> None:
    path.write_bytes(b"this is no image")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def lose(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.jpg")


def deepen(path: Path) -> None:
    Image.fromarray(np.full((12, 10), 40000, np.uint16)).save(path, "PNG")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (corrupt, "cannot be read"),
        (truncate, "truncated"),
        (lose, "is missing"),
        (deepen, "more than 8 bits"),
    ],
)
def test_a_bad_file_is_named_and_skipped_only_on_request(folder: Path, damage: object, message: str) -> None:
    bad = folder / "val/dog/1.jpg"
    damage(bad)  # type: ignore[operator]
    with pytest.raises(PassbandError, match=message) as caught:
        load(f"folder:{folder}")
    assert str(bad) in str(caught.value) and "\n" not in str(caught.value)
    kept = load(f"folder:{folder}", skip_bad=True)
    assert "dog/1.jpg" not in kept.ids and len(kept) == 5
    assert kept.labels is not None and kept.labels.tolist() == [0, 0, 0, 1, 1]
    assert "1 of 6 images were left out" in kept.notes[0] and str(bad) in kept.notes[0]
    with pytest.raises(PassbandError, match=message):
        load(f"folder:{folder}")  # the cache of the skipping run must not hide it


def test_an_image_too_large_to_be_true_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(PassbandError, match="too large to be an image"):
        load(f"folder:{folder}")


def test_a_killed_or_failed_decode_leaves_nothing_that_is_taken_for_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, calls = decode.read_file, []

    def stop(path: Path) -> tuple[np.ndarray, str]:
        calls.append(path)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return real(path)

    monkeypatch.setattr(catalog, "read_file", stop)
    with pytest.raises(KeyboardInterrupt):
        load(f"folder:{folder}")
    monkeypatch.setattr(catalog, "read_file", real)
    assert len(load(f"folder:{folder}")) == 6
    cached = next((tmp_path / "cache").rglob("pixels.uint8"))
    cached.write_bytes(cached.read_bytes()[:-1])  # as after a loss of power
    assert len(load(f"folder:{folder}")) == 6


def test_a_full_disk_says_so_and_leaves_no_part(folder: Path, tmp_path: Path) -> None:
    load(f"folder:{folder}")
    pixels = next((tmp_path / "cache").rglob("pixels.uint8"))
    pixels.unlink()
    pixels.with_suffix(".part").symlink_to("/dev/full")  # every write to it finds no space
    with pytest.raises(PassbandError, match="the disk is full"):
        load(f"folder:{folder}")
    assert not list((tmp_path / "cache").rglob("pixels*"))
    assert len(load(f"folder:{folder}")) == 6


def test_folders_that_are_not_as_they_should_be(folder: Path, tmp_path: Path) -> None:
    def message(name: str, split: catalog.Split = "test") -> str:
        with pytest.raises(PassbandError) as caught:
            load(name, split)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert f"{tmp_path / 'gone'} is not there" in message(f"folder:{tmp_path / 'gone'}")
    assert "has no test/ or val/ (found: cat/, dog/)" in message(f"folder:{folder / 'val'}")
    assert "has no class folders" in message(f"folder:{_made(tmp_path / 'flat/test').parent}")
    assert "folder:PATH" in message(f"images:{folder}")
    assert "holds no images" in message(f"images:{_made(tmp_path / 'bare')}")
    (folder / "val" / "emu").mkdir()
    assert f"class 'emu' is in {folder / 'val'} but not in {folder / 'train'}" in message(f"folder:{folder}")
    (folder / "train" / "emu").mkdir()
    assert f"class folder {folder / 'val' / 'emu'} holds no images" in message(f"folder:{folder}")
    shutil.rmtree(folder / "train")
    assert "has no train/ (found: val/)" in message(f"folder:{folder}", "train")
    (folder / "val" / "emu").rmdir()
    Image.new("RGB", (9, 9)).save(folder / "val/dog/2.jpg")
    assert "differ in size" in (text := message(f"folder:{folder}")) and "dog/2.jpg is 9x9" in text


def _made(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_unknown_names_and_models_of_one_channel() -> None:
    with pytest.raises(PassbandError, match="did you mean 'fashion-mnist'"):
        load("fashionmnist")
    with pytest.raises(PassbandError, match="did you mean 'train'"):
        load("photos", "trian")  # type: ignore[arg-type]
    with pytest.raises(PassbandError, match="three channels"):
        load("photos", spec=ImageSpec((8, 8), None, None, "test", 2, channels=1))


def test_listed_sets_can_be_loaded_by_these_names(tmp_path: Path) -> None:
    listed = {name: where for name, _, where in catalog.names(tmp_path)}
    assert listed["mnist"] == str(tmp_path / "MNIST") and "photos" in listed
    with pytest.raises(PassbandError) as caught:
        load("nothing-like-it")
    assert all(name in str(caught.value) for name in listed)


def test_a_set_that_is_not_there_says_where_and_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(reader: readers.Reader, root: Path, split: str, download: bool = False) -> object:
        (root / reader.folder).mkdir()
        raise RuntimeError("Error downloading it\nsecond line")

    monkeypatch.setattr(readers, "_open", offline)
    monkeypatch.setenv("PASSBAND_DATA", str(tmp_path / "data"))
    with pytest.raises(PassbandError) as caught:
        load("mnist")
    text = str(caught.value)
    assert str(tmp_path / "data") in text and "online" in text and "--data-dir" in text and "\n" not in text
    assert list((tmp_path / "data").iterdir()) == []
    with pytest.raises(PassbandError, match="passband data cifar10-jpeg"):
        load("cifar10-jpeg")


def test_imagenet_is_read_from_its_class_folders(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingData) as caught:
        load("imagenet", data_dir=tmp_path)
    text = str(caught.value)
    assert caught.value.name == "imagenet" and str(tmp_path) in text and "\n" not in text
    assert "imagenet/train/CLASS/" in text and "image-net.org" in text and "--data-dir" in text
    for path in sorted(folder.rglob("*.jpg")):
        path.rename(path.with_suffix(".JPEG"))
    for split in ("train", "val"):
        for name, synset in zip(CLASSES, ("n02123045", "n02084071"), strict=True):
            (folder / split / name).rename(folder / split / synset)
    folder.rename(tmp_path / "imagenet")
    found = load("imagenet", "test", data_dir=tmp_path, size=(8, 8))
    assert found.class_names == ("n02084071", "n02123045") and found.images.shape == (6, 8, 8, 3)
    assert found.labels is not None and found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.ids[0] == "n02084071/0.JPEG"
    assert found.fingerprint != load("imagenet", "train", data_dir=tmp_path, size=(8, 8)).fingerprint
    assert np.array_equal(load("imagenet", data_dir=tmp_path, limit=2, size=(8, 8)).images, found.take(2).images)


def idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(side.to_bytes(4, "big") for side in values.shape)
    path.write_bytes(header + values.tobytes())


def test_torchvision_s_files_are_read_repeated_and_padded(tmp_path: Path) -> None:
    raw = _made(tmp_path / "FashionMNIST/raw")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    for prefix in ("train", "t10k"):
        idx(raw / f"{prefix}-images-idx3-ubyte", pixels)
        idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(6, dtype=np.uint8))
    found = load("fashion-mnist", "test", data_dir=tmp_path)
    assert found.labels is not None and found.labels.tolist() == list(range(6)) and len(found.class_names) == 10
    assert np.array_equal(found.images, np.repeat(pixels[..., None], 3, 3))
    padded = load("fashion-mnist", "test", data_dir=tmp_path, size=(32, 32))
    assert np.array_equal(padded.images[:, 2:30, 2:30], found.images) and padded.images.shape == (
        6,
        32,
        32,
        3,
    )
    assert padded.images.sum(dtype=np.int64) == found.images.sum(dtype=np.int64)
    assert (
        len(
            {
                found.fingerprint,
                padded.fingerprint,
                load("fashion-mnist", "train", data_dir=tmp_path).fingerprint,
            }
        )
        == 3
    )
    resized = load("fashion-mnist", data_dir=tmp_path, limit=2, spec=ImageSpec((40, 40), None, None, "test", 10))
    assert resized.images.shape == (2, 40, 40, 3)
    file = raw / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(PassbandError, match=r"fashion-mnist in .* cannot be read"):
        load("fashion-mnist", data_dir=tmp_path)


def test_the_jpeg_set_is_made_whole_and_read_back(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 32).astype(np.uint8)
    pixels = np.stack([np.broadcast_to(ramp[:, None, None], (32, 32, 3)), np.full((32, 32, 3), 90, np.uint8)])
    arrays = (pixels, np.array([1, 0]), CLASSES)
    made = cifar10_jpeg.write({"train": arrays, "test": arrays}, tmp_path)
    with Image.open(made / "train/dog/0000.jpg") as image:
        assert image.format == "JPEG" and image.layer[0][1:3] == (2, 2)  # 4:2:0
    read = load("cifar10-jpeg", "train", data_dir=tmp_path)
    assert np.abs(read.images[[1, 0]].astype(int) - pixels).max() <= 6 and read.class_names == CLASSES
    assert "not comparable" in read.notes[0]
    assert '"quality": 75' in (made / "made.json").read_text()
    with pytest.raises(PassbandError, match="already there"):
        cifar10_jpeg.make(tmp_path)
    with pytest.raises(ValueError, match="shorter"):
        cifar10_jpeg.write({"train": (pixels, np.array([1]), CLASSES)}, _made(tmp_path / "other"))
    assert list((tmp_path / "other").iterdir()) == []


@pytest.mark.data
def test_the_real_sets_have_their_counts() -> None:
    assert REAL, "this test needs PASSBAND_DATA"
    found = load("fashion-mnist", "train", data_dir=Path(REAL))
    assert found.labels is not None and np.bincount(found.labels).tolist() == [6000] * 10
