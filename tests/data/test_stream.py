"""Streams: one order whoever reads it, continued anywhere, bad samples named."""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from passband.core.errors import PassbandError
from passband.core.recipe import Recipe
from passband.data import stream_order
from passband.data.augment import augmentations
from passband.data.catalog import load, stream
from passband.data.shard_pack import pack
from passband.data.stream import TrainStream
from passband.data.stream_order import Order, lanes_of
from passband.data.stream_samples import window
from passband.data.stream_source import Shards, StreamSet
from passband.train import build
from passband.train.run import train

REAL = Path(os.environ.get("PASSBAND_DATA", "nowhere")) / "imagenet-samples"
SIZE = (24, 24)
AUGMENT = augmentations([{"name": "crop", "pad": 2}, {"name": "flip"}, {"name": "randaugment"}])
Steps = list[tuple[Tensor, Tensor]]

pytestmark = [
    pytest.mark.usefixtures("cache"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # more helpers than cores, to try them
]


@pytest.fixture(scope="module")
def packed(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(photo_folder, tmp_path_factory.mktemp("to") / "shards", per_shard=5)


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_order, "MIXED", 4)


@pytest.fixture
def batches(packed: Path) -> TrainStream:
    return TrainStream(
        stream(f"shards:{packed}", size=SIZE), 8, AUGMENT, seed=3, cut=window(SIZE, (0.2, 1), (1, 1)), helpers=0
    )


def equal(ones: Steps, others: Steps) -> bool:
    return len(ones) == len(others) and all(
        torch.equal(a, b) and torch.equal(x, y) for (a, x), (b, y) in zip(ones, others, strict=True)
    )


def test_an_epoch_has_each_sample_at_most_once_and_lanes_of_one_length() -> None:
    for lengths, batch in (((5,) * 8 + (2,), 8), ((3, 17, 1, 1, 9), 12), ((100,), 6)):
        order = Order(lengths, lanes_of(lengths, batch), seed=1, epoch=2)
        lanes = [order.samples(lane, 0, order.length) for lane in range(order.lanes)]
        seen = [place for lane in lanes for place in lane]
        assert len(set(seen)) == len(seen) == order.length * order.lanes > sum(lengths) - order.lanes
        assert all(0 <= index < lengths[shard] for shard, index in seen)
        assert [order.samples(0, at, at + 1)[0] for at in range(order.length)] == lanes[0]
        other = replace(order, epoch=3)
        assert other.samples(0, 0, order.length) != lanes[0]


@pytest.mark.parametrize(
    ("shards", "batch", "lanes"), [(1, 8, 1), (3, 8, 2), (9, 8, 8), (100, 64, 16), (100, 12, 4), (100, 7, 1)]
)
def test_lanes_are_a_power_of_two_that_divides_the_batch(shards: int, batch: int, lanes: int) -> None:
    assert lanes_of([1] * shards, batch) == lanes


def test_ids_name_the_samples_of_a_step(batches: TrainStream) -> None:
    source = batches.dataset.source
    names = [shard.name for shard in source.shards]
    for step, (_, labels) in enumerate(batches.epoch(1)):
        ids = batches.ids(1, step)
        assert len(ids) == batches.count(step) == 8
        for one, label in zip(ids, labels, strict=True):
            name, _, index = one.partition("#")
            opened = source.open(names.index(name))
            assert opened.label(int(index)) == label
            opened.close()


def test_steps_are_images_in_unit_range(batches: TrainStream) -> None:
    steps = list(batches.epoch(0))
    assert len(steps) == len(batches) == 5
    for images, labels in steps:
        assert images.shape == (8, 3, *SIZE) and images.dtype == torch.float32 and labels.dtype == torch.int64
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert float(images.min()) >= 0 and 0.5 < float(images.max()) <= 1
    assert not equal(steps, list(batches.epoch(1)))
    assert not equal(steps, list(replace(batches, seed=4).epoch(0)))


@pytest.mark.parametrize(("world", "helpers"), [(1, 2), (2, 0), (2, 2), (4, 0), (4, 2)])
def test_neither_ranks_nor_helpers_change_a_pixel(batches: TrainStream, world: int, helpers: int) -> None:
    whole = list(batches.epoch(0))
    ranks = [list(replace(batches, helpers=helpers).share(rank, world).epoch(0)) for rank in range(world)]
    joined = [tuple(map(torch.cat, zip(*parts, strict=True))) for parts in zip(*ranks, strict=True)]
    assert equal(joined, whole)  # type: ignore[arg-type]


def test_helpers_that_take_turns_change_nothing(batches: TrainStream) -> None:
    few = replace(batches, batch=7)
    assert few.lanes == 1 and replace(few, helpers=4)._crew() == (1, 4)
    whole = list(few.epoch(0))
    for start in (0, 3):
        assert equal(list(replace(few, helpers=4).epoch(0, start)), whole[start:])


def test_any_step_can_be_continued_from(batches: TrainStream) -> None:
    whole = list(batches.epoch(2))
    for start in range(len(whole) + 1):
        assert equal(list(batches.epoch(2, start)), whole[start:])
    assert equal(list(replace(batches, helpers=3).epoch(2, 2)), whole[2:])


def test_shards_before_the_start_are_not_opened(batches: TrainStream, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    real = Shards.open
    monkeypatch.setattr(Shards, "open", lambda self, shard: opened.append(shard) or real(self, shard))
    list(batches.epoch(0))
    whole, opened[:] = set(opened), []
    assert whole == set(range(len(batches.dataset.lengths)))
    list(batches.epoch(0, len(batches) - 1))
    share = batches.batch // batches.lanes
    order = batches._order(0)
    needed = {
        shard for lane in range(batches.lanes)
        for shard, _ in order.samples(lane, (len(batches) - 1) * share, len(batches) * share)
    }  # fmt: skip
    assert set(opened) == needed < whole


def test_a_rank_reads_its_own_lanes_alone(batches: TrainStream, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    real = Shards.open
    monkeypatch.setattr(Shards, "open", lambda self, shard: opened.append(shard) or real(self, shard))
    list(batches.share(0, 8).epoch(0))
    assert len(set(opened)) <= 3  # of nine: a lane of five samples, and shards of five


def test_drawing_from_torch_is_left_alone(batches: TrainStream) -> None:
    before = torch.get_rng_state()
    list(replace(batches, helpers=2).epoch(0))
    assert torch.equal(before, torch.get_rng_state())


def test_plain_images_are_those_of_the_held_set(packed: Path, photo_folder: Path) -> None:
    held = load(f"folder:{photo_folder}", "train", size=SIZE)
    for name in (f"folder:{photo_folder}", f"shards:{packed}"):
        found = stream(name, size=SIZE)
        batches = TrainStream(found, 6, helpers=0)
        keys = [one.rpartition(".")[0] for one in held.ids]
        for step, (images, labels) in enumerate(batches.epoch(0)):
            for id_, image, label in zip(batches.ids(0, step), images, labels, strict=True):
                place = keys.index(_key(found, id_))
                assert held.labels is not None and held.labels[place] == label
                assert np.array_equal(
                    (255 * image).round().to(torch.uint8).permute(1, 2, 0).numpy(), held.images[place]
                )


def _key(found: StreamSet, id_: str) -> str:
    name, hash_, index = id_.partition("#")
    if not hash_:
        return name.rpartition(".")[0]
    opened = found.source.open([shard.name for shard in found.source.shards].index(name))
    opened.close()
    return opened.key(int(index))


def test_a_folders_files_are_those_that_timm_finds(photo_folder: Path) -> None:
    from timm.data import create_reader

    reader = create_reader("", root=str(photo_folder / "train"))
    source = stream(f"folder:{photo_folder}", size=SIZE).source
    ours = {
        source.id(number, index): source.open(number).label(index)
        for number, shard in enumerate(source.shards) for index in range(shard.length)
    }  # fmt: skip
    assert ours == {reader.filename(index): reader.samples[index][1] for index in range(len(reader))}


def damaged(packed: Path, to: Path, bad: set[int]) -> Path:
    """Write the shards again, with images at some places of every training shard cut short."""
    to.mkdir()
    for path in packed.iterdir():
        if not path.name.startswith("train"):
            (to / path.name).write_bytes(path.read_bytes())
            continue
        with tarfile.open(path) as tar, tarfile.open(to / path.name, "w") as written:
            for number, member in enumerate(tar.getmembers()):
                data = tar.extractfile(member).read()  # type: ignore[union-attr]
                if member.name.endswith(".jpg") and number // 2 in bad:
                    data = data[: len(data) // 2]
                    member.size = len(data)
                written.addfile(member, io.BytesIO(data))
    return to


def test_a_bad_sample_ends_the_training_by_name(packed: Path, tmp_path: Path) -> None:
    found = stream(f"shards:{damaged(packed, tmp_path / 'bad', {1})}", size=SIZE)
    for helpers in (0, 2):
        with pytest.raises(PassbandError, match=r"sample \w+/\d+ of shard train-\d+\.tar cannot be read") as caught:
            list(TrainStream(found, 8, helpers=helpers).epoch(0))
        assert "\n" not in str(caught.value)


def test_a_skipped_sample_is_counted_and_another_stands_in(packed: Path, tmp_path: Path) -> None:
    found = stream(f"shards:{damaged(packed, tmp_path / 'bad', {1})}", size=SIZE)
    batches = TrainStream(found, 8, AUGMENT, skip_bad=True, helpers=0)
    whole = list(batches.epoch(0))
    assert sum(len(labels) for _, labels in whole) == 40
    (note,) = batches.notes
    places = {name for step in range(5) for name in batches.ids(0, step) if name.endswith("#1")}
    count = int(note.partition(": ")[2].partition(" ")[0])
    assert len(places) <= count <= 9 and "train-00000" in note
    for other in (replace(batches, helpers=3), replace(batches, helpers=0)):
        assert equal(list(other.epoch(0)), whole)
    assert equal(list(batches.epoch(0, 3)), whole[3:])
    none = stream(f"shards:{damaged(packed, tmp_path / 'none', set(range(5)))}", size=SIZE)
    with pytest.raises(PassbandError, match=r"none of \d+ samples"):
        list(TrainStream(none, 8, skip_bad=True, helpers=0).epoch(0))


def test_passed_over_members_are_noted(packed: Path, tmp_path: Path) -> None:
    place = damaged(packed, tmp_path / "link", set())
    link = tarfile.TarInfo("ant/link.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(place / "train-000002.tar", "a") as tar:
        tar.addfile(link)
    batches = TrainStream(stream(f"shards:{place}", size=SIZE), 8, helpers=0)
    list(batches.epoch(0))
    assert batches.notes[0].endswith("no plain files: ant/link.jpg in train-000002.tar")


def test_a_shard_that_holds_less_than_was_said_is_named(packed: Path, tmp_path: Path) -> None:
    place = damaged(packed, tmp_path / "less", set())
    facts = json.loads((place / "_info.json").read_text())
    facts["splits"]["train"]["shard_lengths"][3] += 1
    (place / "_info.json").write_text(json.dumps(facts))
    with pytest.raises(PassbandError, match=r"train-000003\.tar .* holds 5 samples, and 6 were said"):
        list(TrainStream(stream(f"shards:{place}", size=SIZE), 8, helpers=0).epoch(0))
    (place / "train-000003.tar").unlink()
    with pytest.raises(PassbandError, match=r"train-000003\.tar is not there"):
        list(TrainStream(stream(f"shards:{place}", size=SIZE), 8, helpers=2).epoch(0))


def _dies(images: Tensor, _: torch.Generator) -> Tensor:
    os.kill(os.getpid(), signal.SIGKILL)
    return images


def test_a_helper_that_dies_is_said_in_one_line(batches: TrainStream) -> None:
    with pytest.raises(
        PassbandError, match=r"a process that reads shards:.* died \((killed|is killed|exited).*\); most"
    ) as caught:
        list(replace(batches, augment=(_dies,), helpers=2).epoch(0))
    assert "\n" not in str(caught.value)


def test_what_cannot_be_shared_is_refused(batches: TrainStream) -> None:
    with pytest.raises(PassbandError, match="8 lanes, which 3 processes cannot share"):
        batches.share(0, 3)
    with pytest.raises(PassbandError, match="give another batch"):
        replace(batches, batch=64)
    with pytest.raises(PassbandError, match=r"data\.stream reads"):
        stream("fashion-mnist", size=SIZE)


def recipe(name: str, *settings: str) -> Recipe:
    return Recipe().with_settings(
        [f"data.name={name}", "data.size=24", "normalize=none", "batch=8", "epochs=1", "model.width=4", *settings]
    )


def test_what_a_stream_cannot_do_is_refused_in_a_line(packed: Path, photo_folder: Path) -> None:
    for setting, why in (
        ("data.part=4", r"data\.part needs a set that is held"),
        ("data.shuffle_labels=true", r"data\.shuffle_labels needs a set that is held"),
        ("normalize=null", "mean and std of a stream are not measured"),
    ):
        with pytest.raises(PassbandError, match=why):
            build.training_set(recipe(f"shards:{packed}", setting))
    streamed = build.training_set(recipe(f"folder:{photo_folder}", "data.stream=true"))
    assert isinstance(streamed, StreamSet) and len(streamed) == 42


def test_a_recipe_cuts_from_the_photograph_and_sees_through_its_view(packed: Path) -> None:
    cut = recipe(f"shards:{packed}", "augment=[{name: resized-crop}, {name: flip}]")
    made = build.batches(cut, build.training_set(cut))
    assert isinstance(made, TrainStream) and made.cut is not None and len(made.augment) == 1
    low = recipe(f"shards:{packed}", "data.view={name: band_limited, cutoff: 4, rescale: none}", "augment=[]")
    made, plain = (
        build.batches(one, build.training_set(one)) for one in (low, recipe(f"shards:{packed}", "augment=[]"))
    )
    (seen, _), (images, _) = next(made.epoch(0)), next(plain.epoch(0))
    assert isinstance(seen, Tensor) and isinstance(images, Tensor)
    from passband.core.band import Band
    from passband.frequency.filters import keep

    assert torch.allclose(seen, keep(images, Band(4, "disc", "pixel", "inclusive", "low")), atol=1e-5)


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "runs"


def test_a_recipe_trains_on_shards_and_goes_on_within_an_epoch(
    packed: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe(f"shards:{packed}", "batch=16", "augment=[{name: resized-crop}, {name: flip}]")
    whole = train(wanted, runs=runs / "whole")
    served = TrainStream.epoch

    def broken(self: TrainStream, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        yield next(iter(served(self, number, start)))
        os.kill(os.getpid(), signal.SIGINT)
        yield from served(self, number, start + 1)

    monkeypatch.setattr(TrainStream, "epoch", broken)
    with pytest.raises(KeyboardInterrupt):
        train(wanted, runs=runs / "broken")
    monkeypatch.setattr(TrainStream, "epoch", served)
    again = train(wanted, runs=runs / "broken")
    assert len((again.folder / "log.csv").read_text().splitlines()) == len(
        (whole.folder / "log.csv").read_text().splitlines()
    )
    assert (again.folder / "weights.safetensors").read_bytes() == (whole.folder / "weights.safetensors").read_bytes()


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason="the ImageNet sample images are not in PASSBAND_DATA/imagenet-samples")
def test_the_imagenet_samples_go_through_shards(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "train").symlink_to(REAL / "val")
    place = pack(tmp_path / "photos", tmp_path / "shards", size_mb=2)
    batches = TrainStream(
        stream(f"shards:{place}", size=(64, 64)), 32, AUGMENT, cut=window((64, 64), (0.08, 1), (0.75, 1.33))
    )
    assert len(batches.dataset) == 1000 and len(batches.dataset.class_names) == 1000 and batches.lanes == 8
    steps = list(replace(batches, helpers=0).epoch(0))
    assert len(torch.cat([labels for _, labels in steps]).unique()) == 32 * len(batches) > 960
    assert equal(list(replace(batches, helpers=2).epoch(0, 20)), steps[20:])
