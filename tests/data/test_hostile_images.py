"""Image files and annotations that somebody made to do harm: refused with their names, before they take memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from passband.core.errors import PassbandError
from passband.data import coco, readers
from passband.data.decode import LARGEST, BadImage, decoded, read_file


class Code:
    """Leave a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.mark}",))


def png(width: int, height: int) -> bytes:
    """Return a PNG that says it has so many pixels, of which it holds few."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(60_000, 60_000), (13_300, 13_300), (LARGEST // 9000 + 1, 9000)])
def test_a_bomb_is_refused_before_it_takes_memory(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(*size))
    tracemalloc.start()
    with pytest.raises(BadImage, match=r"bomb\.png is too large to be an image"):
        read_file(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 5_000_000


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_an_image_cut_short_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    path = tmp_path / f"cut.{kind.lower()}"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 3])
    with pytest.raises(BadImage, match=r"cut\.\w+ cannot be read as an image"):
        read_file(path)


def test_a_program_called_an_image_is_handed_to_no_interpreter(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(BadImage, match="cannot identify image file"):
        read_file(path)


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "deep/../../secret.jpg", "x" * 5000, "a\0b"])
def test_annotations_name_no_image_outside_their_folder(tmp_path: Path, name: str) -> None:
    images = tmp_path / "val2017"
    images.mkdir()
    Image.new("RGB", (10, 8)).save(tmp_path / "secret.jpg")
    listed = {"id": 1, "file_name": name, "height": 8, "width": 10}
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"categories": [], "images": [listed], "annotations": []}))
    with pytest.raises(PassbandError, match=r"lies outside|is not there"):
        coco.read(images, path)
    assert coco.read(images, path, skip_bad=True).scenes == ()


def test_a_deep_name_of_an_annotation_is_refused(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(700):
        deep = [deep]
    one = {"id": deep, "image_id": 9, "category_id": 1, "bbox": [0, 0, 1, 1]}
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"categories": [], "images": [], "annotations": [one]}))
    with pytest.raises(PassbandError, match="cannot be read as COCO's annotations"):
        coco.read(tmp_path, path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"shape": 3}', '{"shape": [2, 4, 4, 3], "bad": [], "kinds": {}}', "[" * 3000,
     '{"shape": [9, 4, 4, 3], "bad": {}, "kinds": {}}', '{"shape": [2, 4, "x", 3], "bad": {"a": 1}, "kinds": {}}'],
)  # fmt: skip
def test_a_damaged_cache_of_images_is_made_again(tmp_path: Path, monkeypatch, text: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    image = np.full((4, 4, 3), 7, np.uint8)
    for _ in range(2):
        made = decoded("key", ["a", "b"], lambda index: (image, ""))
        np.testing.assert_array_equal(made.images, [image, image])
        next(tmp_path.rglob("images.json")).write_text(text)


def test_code_in_a_data_set_is_refused_and_not_run(tmp_path: Path) -> None:
    mark, folder = tmp_path / "mark", tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("batches.meta", "test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        (folder / name).write_bytes(pickle.dumps(Code(mark)))
    with pytest.raises(PassbandError, match=r"cifar10 in .* cannot be read"):
        readers.read("cifar10", "train", tmp_path)
    assert not mark.exists()


def test_code_in_an_old_folder_of_mnist_is_refused_and_not_run(tmp_path: Path) -> None:
    import torch

    mark, folder = tmp_path / "mark", tmp_path / "FashionMNIST"
    for name in ("training.pt", "test.pt"):
        (folder / "processed").mkdir(parents=True, exist_ok=True)
        torch.save((Code(mark), Code(mark)), folder / "processed" / name)
    with pytest.raises(PassbandError, match=r"fashion-mnist in .* cannot be read"):
        readers.read("fashion-mnist", "train", tmp_path)
    assert not mark.exists()
