"""Targets that take files: images, COCO's annotations, class lists, caches, checkpoints, weights."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from fuzz_run import Target
from fuzz_text import FOLDER
from fuzz_values import damaged, junk, near, texts
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from passband.core.errors import PassbandError
from passband.data import coco, decode, folders
from passband.data.shard_info import read_info
from passband.models.weights_file import load_weights, read_weights
from passband.train.checkpoint import read as read_checkpoint

_PIXELS = np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3)


def _image(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(_PIXELS).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


IMAGES = [
    _image("PNG"),
    _image("PNG", "P"),
    _image("PNG", "RGBA"),
    _image("PNG", "1"),
    _image("JPEG"),
    _image("JPEG", "CMYK"),
    _image("JPEG", "L", progressive=True),
    _image("GIF"),
    _image("BMP"),
    _image("TIFF"),
    _image("TIFF", compression="tiff_lzw"),
    _image("WEBP"),
    _image("PPM"),
    _image("PPM", "L"),
]


def image_holds(data: bytes) -> None:
    """An image file is read as pixels, or refused with its name."""
    path = FOLDER / "fuzzed.png"
    path.write_bytes(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels, _ = decode.read_file(path)
    except PassbandError as error:
        assert str(path) in str(error)
        raise
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size


_SCENES = FOLDER / "val2017"
_SCENES.mkdir()
for _name in ("a.jpg", "b.jpg"):
    (_SCENES / _name).write_bytes(IMAGES[4])
(FOLDER / "outside.jpg").write_bytes(IMAGES[4])
ANNOTATIONS: dict[str, Any] = {
    "categories": [{"id": 3, "name": "car"}, {"id": 17, "name": "cat"}],
    "images": [
        {"id": 7, "file_name": "b.jpg", "height": 12, "width": 10},
        {"id": 5, "file_name": "a.jpg", "height": 12, "width": 10},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 17, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 3, "bbox": [0, 0, 5.5, 6], "iscrowd": 1, "area": 9.5},
    ],
}


def coco_holds(case: tuple[Any, bool]) -> None:
    """Annotations give boxes inside their images, and images inside their folder."""
    given, skip_bad = case
    path = FOLDER / "instances.json"
    path.write_bytes(given if isinstance(given, bytes) else json.dumps(given).encode("utf-8", "surrogatepass"))
    found = coco.read(_SCENES, path, skip_bad=skip_bad)
    for scene in found.scenes:
        assert scene.path.resolve().parent == _SCENES.resolve()
        for thing in scene.things:
            left, top, right, bottom = thing.box
            assert 0 <= left < right <= scene.size[1] and 0 <= top < bottom <= scene.size[0], thing
    assert all(isinstance(line, str) for line in found.left_out)


_names = st.one_of(texts, st.sampled_from(["../outside.jpg", "./a.jpg", "b.jpg", "..", ".", "a.jpg/x", "\0"]), junk)
_annotations = st.one_of(
    near(ANNOTATIONS), near(ANNOTATIONS, _names, 2), damaged([json.dumps(ANNOTATIONS).encode()], 3), junk
)


_SHARDS = FOLDER / "shards"
_SHARDS.mkdir()
INFO: dict[str, Any] = {
    "splits": {
        "train": {"filenames": ["a-train-0.tar", "a-train-1.tar"], "shard_lengths": [3, 2], "shard_digests": ["0", "1"]}
    },
    "class_names": ["cat", "dog"],
}


def info_holds(given: Any) -> None:
    """What is said of shards names files inside their place and says how many samples each holds."""
    text = given if isinstance(given, bytes) else json.dumps(given).encode("utf-8", "surrogatepass")
    (_SHARDS / "_info.json").write_bytes(text)
    found = read_info(str(_SHARDS), "train")
    assert found.shards and found.class_names
    for shard in found.shards:
        assert (_SHARDS / shard.name).resolve().is_relative_to(_SHARDS.resolve()) and shard.length > 0


def folder_holds(names: list[tuple[str, str]]) -> None:
    """Class folders of any names are listed, each class once, or refused."""
    import shutil

    root = FOLDER / "classes"
    shutil.rmtree(root, ignore_errors=True)
    for kind, name in names:
        try:
            (root / "test" / kind).mkdir(parents=True, exist_ok=True)
            (root / "test" / kind / f"{name}.png").write_bytes(b"x")
        except (OSError, ValueError):
            continue  # a name that this disk does not take
    found = folders.list_classes(root, "test")
    assert len(set(found.class_names)) == len(found.class_names) == len(set(found.labels))
    assert all((found.root / file).is_file() for file in found.files)


def cache_holds(case: tuple[bytes, int]) -> None:
    """A cache of decoded images that was damaged is made again, never an error of its own."""
    text, length = case
    key, names = "fuzz", ["a", "b"]
    made = decode.decoded(key, names, lambda index: (_PIXELS, ""))
    folder = Path(str(made.images.filename)).parent
    (folder / "images.json").write_bytes(text)
    if length:
        (folder / "pixels.uint8").write_bytes(b"\1" * length)
    again = decode.decoded(key, names, lambda index: (_PIXELS, ""))
    assert again.images.shape[1:] == _PIXELS.shape and len(again.images) == len(again.kept)


def _saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


_STATE = _net().state_dict()
CHECKPOINTS = [
    _saved({"digest": "d", "model": _STATE, "ema": None, "memory": {}, "random": torch.get_rng_state()}),
    _saved(_STATE),
    _saved({"state_dict": _STATE}),
    _saved(_STATE, _use_new_zipfile_serialization=False),
    _saved([1, 2]),
]
SAFETENSORS = [
    safetensors.torch.save(_STATE, {"mean": "[0.5]", "std": "[0.25]", "class_names": '["a", "b"]'}),
    safetensors.torch.save({"x": torch.ones(2, dtype=torch.bfloat16)}),
]


def checkpoint_holds(data: bytes) -> None:
    path = FOLDER / "checkpoint.pt"
    path.write_bytes(data)
    assert isinstance(read_checkpoint(path), dict)


def weights_hold(case: tuple[bytes, str]) -> None:
    """Weights load whole and finite, or a network stays as it was."""
    data, suffix = case
    path = FOLDER / f"weights.{suffix}"
    path.write_bytes(data)
    model = _net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        file = read_weights(path)
        for values in (file.mean, file.std):
            assert values is None or all(isinstance(value, float | int) for value in values)
        assert all(isinstance(name, str) for name in file.class_names)
        load_weights(model, file)
    except PassbandError:
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        raise
    assert all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())


TARGETS = (
    Target("image files", damaged(IMAGES), image_holds, 10),
    Target("COCO annotations", st.tuples(_annotations, st.booleans()), coco_holds, 10),
    Target(
        "facts of shards",
        st.one_of(near(INFO), near(INFO, _names, 2), damaged([json.dumps(INFO).encode()], 2)),
        info_holds,
        3,
    ),
    Target("class folders", st.lists(st.tuples(texts, texts), max_size=4), folder_holds, 2),
    Target(
        "caches of images",
        st.tuples(
            damaged([b'{"shape": [2, 12, 10, 3], "bad": {}, "kinds": {}}'], 2), st.sampled_from([0, 0, 1, 360, 720])
        ),
        cache_holds,
        1,
        few=10,
        both=False,
    ),
    Target("checkpoints", damaged(CHECKPOINTS), checkpoint_holds, 5),
    Target(
        "weights",
        st.one_of(
            st.tuples(damaged(CHECKPOINTS), st.just("pt")),
            st.tuples(damaged(SAFETENSORS), st.just("safetensors")),
        ),
        weights_hold,
        5,
    ),
)
