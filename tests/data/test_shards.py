"""Shards: packed, read from folders, URLs and servers, and what is wrong with them."""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from passband.core.errors import PassbandError
from passband.data import shard_info, shard_pack, shard_store
from passband.data.catalog import load
from passband.data.decode import BadImage
from passband.data.shard_info import read_info
from passband.data.shard_pack import pack
from passband.data.shard_tar import TarShard

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def packed(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(photo_folder, tmp_path_factory.mktemp("to") / "shards", per_shard=8)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_store, "WAIT", 0.0)


def write_tar(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def copied(packed: Path, to: Path) -> Path:
    shutil.copytree(packed, to)
    return to


def test_packed_shards_hold_every_file_with_its_class(packed: Path, photo_folder: Path) -> None:
    info = json.loads((packed / "_info.json").read_text())
    assert info["class_names"] == ["ant", "bee", "cat"] and list(info["splits"]) == ["train", "test"]
    found = {}
    for name, length in zip(*(info["splits"]["train"][key] for key in ("filenames", "shard_lengths")), strict=True):
        shard = TarShard(str(packed), name)
        assert len(shard) == length <= 8 and shard.ignored == ()
        found |= {shard.key(at): (shard.image(at), shard.label(at)) for at in range(length)}
        shard.close()
    files = {
        f"{path.parent.name}/{path.stem}": (path.read_bytes(), "abc".index(path.parent.name[0]))
        for path in (photo_folder / "train").rglob("*.JPEG")
    }
    assert found == files


def test_timm_reads_what_we_pack(packed: Path) -> None:
    from timm.data import create_dataset

    for split, count in (("train", 42), ("test", 9)):
        reader = create_dataset("wds/", root=str(packed), split=split, is_training=False)
        served = list(reader)
        assert len(reader) == len(served) == count
        assert sorted(label for _, label in served) == sorted(list(range(3)) * (count // 3))


def test_packing_again_finds_it_done_and_refuses_another_folder(packed: Path, photo_folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in packed.iterdir()}
    assert pack(photo_folder, packed, per_shard=8) == packed
    assert {path: path.stat().st_mtime_ns for path in packed.iterdir()} == before
    with pytest.raises(PassbandError, match="holds other things"):
        pack(photo_folder, packed, per_shard=7)


def test_a_killed_packing_is_continued_to_the_same_shards(
    packed: Path, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = shard_pack._write, []

    def killed_at_the_fourth(path: Path, *rest: Any) -> str:
        if len(written) == 3:
            path.with_suffix(".part").write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(path.name)
        return write(path, *rest)

    monkeypatch.setattr(shard_pack, "_write", killed_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        pack(photo_folder, tmp_path / "shards", per_shard=8)
    assert not (tmp_path / "shards").exists()
    again: list[str] = []
    monkeypatch.setattr(shard_pack, "_write", lambda path, *rest: again.append(path.name) or write(path, *rest))
    pack(photo_folder, tmp_path / "shards", per_shard=8)
    assert not set(written) & set(again)
    names = {path.name for path in packed.iterdir()}
    assert names == {path.name for path in (tmp_path / "shards").iterdir()}
    assert all((packed / name).read_bytes() == (tmp_path / "shards" / name).read_bytes() for name in names)
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["shards"]


def test_names_with_dots_stay_apart(tmp_path: Path, photo_folder: Path) -> None:
    image = next((photo_folder / "train" / "ant").iterdir())
    folder = tmp_path / "photos" / "train" / "a.b"
    folder.mkdir(parents=True)
    for name in ("x.1.jpg", "x_1.jpg", "x.1.png", "ünï" * 60 + ".jpg"):
        shutil.copy(image, folder / name[-90:])
    place = pack(tmp_path / "photos", tmp_path / "shards")
    shard = TarShard(str(place), "train-000000.tar")
    assert len({shard.key(at) for at in range(len(shard))}) == len(shard) == 4
    shard.close()


def test_the_test_split_is_the_folders(packed: Path, photo_folder: Path) -> None:
    ours, folders = (load(f"{kind}", "test", size=(24, 24)) for kind in (f"shards:{packed}", f"folder:{photo_folder}"))
    assert np.array_equal(ours.images, folders.images) and np.array_equal(ours.labels, folders.labels)  # type: ignore[arg-type]
    assert ours.class_names == folders.class_names and ours.ids[0] == "ant/000"
    few, same = (one.take(5) for one in (ours, folders))
    limited = load(f"shards:{packed}", "test", size=(24, 24), limit=5)
    assert np.array_equal(limited.images, same.images) and limited.ids == few.ids
    assert limited.fingerprint not in (
        ours.fingerprint,
        load(f"shards:{packed}", "test", size=(24, 24), limit=4).fingerprint,
    )


def test_shards_of_others_are_gone_through_once(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = copied(packed, tmp_path / "theirs")
    (place / "_info.json").unlink()
    info, said = read_info(str(place), "train"), read_info(str(packed), "train")
    assert info.shards == said.shards and info.class_names == ("0", "1", "2")
    monkeypatch.setattr(shard_info, "TarShard", None)
    assert read_info(str(place), "train") == info
    for path in place.glob("train*"):
        path.unlink()
    with pytest.raises(PassbandError, match="holds no shards of the split train"):
        read_info(str(place), "train")


def test_timms_own_info_needs_no_class_names(packed: Path, tmp_path: Path) -> None:
    place = copied(packed, tmp_path / "theirs")
    facts = json.loads((place / "_info.json").read_text())
    del facts["class_names"]
    (place / "_info.json").write_text(json.dumps(facts))
    assert read_info(str(place), "train").class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "cannot be read"),
        ("[]", "no 'splits'"),
        ('{"splits": {}}', "names no split"),
        ('{"splits": {"train": 3}}', "as many 'shard_lengths'"),
        ('{"splits": {"train": {"filenames": ["a.tar"], "shard_lengths": [1, 2]}}}', "as many 'shard_lengths'"),
        ('{"splits": {"train": {"filenames": ["../a.tar"], "shard_lengths": [1]}}}', "outside of its place"),
        ('{"splits": {"train": {"filenames": ["/etc/a"], "shard_lengths": [1]}}}', "outside of its place"),
        ('{"splits": {"train": {"filenames": ["s3://a"], "shard_lengths": [1]}}}', "outside of its place"),
        ('{"splits": {"train": {"filenames": ["a.tar"], "shard_lengths": [0]}}}', "holds 0 samples"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_a_damaged_info_is_refused_in_one_line(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "_info.json").write_text(text)
    with pytest.raises(PassbandError, match=why) as caught:
        read_info(str(tmp_path), "train")
    assert "\n" not in str(caught.value)


def test_members_that_leave_the_shard_are_passed_over_and_named(tmp_path: Path) -> None:
    link, device = tarfile.TarInfo("a/link.jpg"), tarfile.TarInfo("a/device.jpg")
    link.type, link.linkname, device.type = tarfile.SYMTYPE, "/etc/passwd", tarfile.CHRTYPE
    members: dict[str, bytes | tarfile.TarInfo] = {
        "a/1.jpg": b"one", "a/1.cls": b"2", "a/link.jpg": link, "a/device.jpg": device, "/etc/x.jpg": b"no",
        "a/../../y.jpg": b"no", "a/2.cls": b" 1\n", "a/2.png": b"two",
    }  # fmt: skip
    write_tar(tmp_path / "a.tar", members)
    shard = TarShard(str(tmp_path), "a.tar")
    assert [(shard.key(at), shard.label(at), shard.image(at)) for at in range(len(shard))] == [
        ("a/1", 2, b"one"), ("a/2", 1, b"two"),
    ]  # fmt: skip
    assert shard.ignored == ("a/link.jpg", "a/device.jpg", "/etc/x.jpg", "a/../../y.jpg")
    shard.close()


def test_samples_that_are_none_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members: dict[str, bytes | tarfile.TarInfo] = {
        "a.jpg": b"1", "b.cls": b"1", "c.jpg": b"1", "c.cls": b"-1", "d.jpg": b"12345", "d.cls": b"9" * 40,
    }  # fmt: skip
    write_tar(tmp_path / "a.tar", members)
    shard = TarShard(str(tmp_path), "a.tar")
    for index, why in ((0, "sample a of shard a.tar has no class"), (2, "no number"), (3, "no class")):
        with pytest.raises(BadImage, match=why):
            shard.label(index)
    with pytest.raises(BadImage, match=r"sample b of shard a\.tar has no image"):
        shard.image(1)
    monkeypatch.setattr("passband.data.shard_tar.LARGEST_IMAGE", 4)
    with pytest.raises(BadImage, match="holds 5 bytes"):
        shard.image(3)
    shard.close()
    twice = write_tar(tmp_path / "b.tar", {"a.jpg": b"1"})
    with tarfile.open(twice, "a") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    shard = TarShard(str(tmp_path), "b.tar")
    with pytest.raises(BadImage, match=r"two files \.jpg"):
        shard.image(0)
    shard.close()


def test_a_damaged_tar_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "a.tar", {"a.jpg": b"x" * 700, "a.cls": b"1"}).read_bytes()
    ends = whole.rstrip(b"\0")
    for cut in range(0, len(ends) // 512 * 512 + 512, 256):
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        with pytest.raises(PassbandError, match=r"shard cut\.tar is damaged"):
            TarShard(str(tmp_path), "cut.tar")
    for content in (b"no tar at all" * 100, whole[:1536] + b"\1" * 512 + whole[2048:]):
        (tmp_path / "cut.tar").write_bytes(content)
        with pytest.raises(PassbandError, match="damaged"):
            TarShard(str(tmp_path), "cut.tar")


class _S3(MemoryFileSystem):
    """A bucket in memory."""

    protocol = "s3"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("s3:/")))


def _upload(packed: Path, system: Any, root: str) -> None:
    for path in packed.iterdir():
        system.pipe_file(f"{root}/{path.name}", path.read_bytes())


def test_shards_are_read_from_a_bucket(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_registry, "s3", _S3)
    system = fsspec.filesystem("s3")
    _upload(packed, system, "/bucket/imagenet")
    said = read_info(str(packed), "train")
    assert read_info("s3://bucket/imagenet", "train").fingerprint == said.fingerprint
    here, there = (load(f"shards:{place}", "test", size=(24, 24)) for place in (packed, "s3://bucket/imagenet"))
    assert np.array_equal(here.images, there.images) and here.fingerprint == there.fingerprint
    system.rm("/bucket/imagenet/_info.json")
    assert read_info("s3://bucket/imagenet", "train").shards == said.shards


class _Server(SimpleHTTPRequestHandler):
    """A web server that serves parts of files, or does not, and cuts some connections."""

    ranges = True
    cuts: ClassVar[dict[str, int]] = {}
    asked: ClassVar[list[str]] = []

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path))
        self.asked.append(self.path)
        if not data.is_file():
            self.send_error(404)
            return
        whole = data.read_bytes()
        first, last = 0, len(whole) - 1
        if self.ranges and (given := self.headers.get("Range")):
            first, _, end = given.removeprefix("bytes=").partition("-")
            first, last = int(first), min(int(end or last), last)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(whole)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(last - first + 1))
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        name = data.name
        if self.cuts.get(name, 0) > 0:
            self.cuts[name] -= 1
            self.wfile.write(whole[first : first + 100])
            self.close_connection = True
            return
        self.wfile.write(whole[first : last + 1])


@pytest.fixture
def server(packed: Path) -> Iterator[str]:
    _Server.ranges, _Server.cuts, _Server.asked = True, {}, []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Server, directory=str(packed))) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


@pytest.mark.parametrize("ranges", [True, False])
def test_shards_are_read_from_a_web_server(packed: Path, server: str, ranges: bool) -> None:
    _Server.ranges = ranges
    assert read_info(server, "train").fingerprint == read_info(str(packed), "train").fingerprint
    here, there = (load(f"shards:{place}", "test", size=(24, 24)) for place in (packed, server))
    assert np.array_equal(here.images, there.images) and here.ids == there.ids


def test_a_cut_connection_is_tried_again_and_then_given_up(server: str) -> None:
    _Server.cuts["train-000001.tar"] = 2
    shard = TarShard(server, "train-000001.tar")
    assert len(shard) == 8 and _Server.cuts["train-000001.tar"] == 0
    shard.close()
    _Server.cuts["train-000001.tar"] = 100
    with pytest.raises(PassbandError, match=r"train-000001\.tar could not be read in 4 attempts") as caught:
        TarShard(server, "train-000001.tar")
    assert "\n" not in str(caught.value)


def test_what_is_missing_far_away_is_said(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(shard_store.MissingFile, match=r"none\.tar is not there"):
        TarShard(server, "none.tar")
    with pytest.raises(PassbandError, match=r"has no _info\.json, and a web server lists no folder"):
        read_info(f"{server}/elsewhere", "train")
    with pytest.raises(PassbandError, match="no place to read from"):
        read_info("nowhere://x", "train")
    monkeypatch.setattr(shard_store, "LARGEST", 100)
    with pytest.raises(PassbandError, match="pack smaller shards"):
        TarShard(server, "train-000001.tar")


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, packed: Path) -> None:
    monkeypatch.delitem(_registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(PassbandError, match=r"pip install 'passband\[data\]'"):
        read_info("s3://bucket/none", "train")
    monkeypatch.setitem(sys.modules, "webdataset.tariterators", None)
    with pytest.raises(PassbandError, match="shards need webdataset"):
        TarShard(str(packed), "train-000000.tar")
