"""Every data set by its name: ``photos``, ``fashion-mnist``, ``folder:PATH`` …"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from passband.core.errors import MissingData, PassbandError, unknown
from passband.core.spec import ImageSpec
from passband.core.store import data_folder
from passband.data import restricted_imagenet, shard_images, stream_source
from passband.data.dataset import ImageSet, derive, fingerprint, permutation
from passband.data.decode import Kind, decoded, read_file
from passband.data.fitting import Fitting, pad
from passband.data.folders import Listing, list_classes, list_flat
from passband.data.photos import photos
from passband.data.readers import READERS, read
from passband.data.stream_source import StreamSet

Split = Literal["train", "test"]
Chosen = tuple[int | None, int]
"""A limit and the seed of the permutation that it cuts."""

SCENES = ("coco128", "coco", "coco:PATH", "pasted-photos")
"""Sets of photographs with boxes, which :mod:`passband.data.scene_catalog` loads."""

JPEG_NOTE = (
    "cifar10-jpeg: every image went through JPEG, which alters the high frequencies; numbers on it are not "
    "comparable with numbers on CIFAR-10"
)
_KINDS: dict[Kind, str] = {
    "gray": "are gray and were repeated to three channels",
    "transparent": "have transparency, which was dropped (the hidden colors show)",
}


def load(
    name: str,
    split: Split = "test",
    *,
    size: tuple[int, int] | None = None,
    spec: ImageSpec | None = None,
    data_dir: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
) -> ImageSet:
    """Load a data set.

    Args:
        name: ``photos``, ``fashion-mnist``, ``mnist``, ``cifar10``, ``cifar100``, ``cifar10-jpeg``, ``imagenet``,
            ``restricted-imagenet`` (nine classes that its own are merged into), ``folder:PATH`` with class folders in
            ``train/`` and in ``test/`` or ``val/``, ``images:PATH``, a flat folder, or ``shards:PLACE``, WebDataset
            shards in a folder or under a URL.
        split: ``"train"`` or ``"test"``; a flat folder is the same in both.
        size: Height and width to come to: smaller images are zero-padded evenly, larger ones go through
            timm's evaluation transform.
        spec: The model that will see the images; its size and its way to it count in place of ``size``.
        data_dir: Where sets lie; ``$PASSBAND_DATA``, else the user's cache folder, when not given.
        limit: Take the first so many of one fixed permutation; only these are decoded.
        seed: Of that permutation.
        skip_bad: Leave image files out that cannot be read, and count them in the notes.

    Raises:
        PassbandError: for an unknown name, data that is not there or cannot be read, a file that is bad.
    """
    if split not in ("train", "test"):
        raise unknown("split", split, ("train", "test"))
    fitting, chosen = Fitting.of(size, spec), (limit, seed)
    kind, colon, path = name.partition(":")
    if colon and kind in ("folder", "images"):
        folder = Path(path).expanduser()
        listing = list_classes(folder, split) if kind == "folder" else list_flat(folder)
        return _files(name, listing, fitting, chosen, skip_bad, kind)
    if colon and kind == "shards":
        return _shards(name, path, split, fitting, chosen, skip_bad)
    root = data_folder() if data_dir is None else Path(data_dir).expanduser()
    if name == "cifar10-jpeg":
        return _files(name, _cifar10_jpeg(root, split), fitting, chosen, skip_bad, name, (JPEG_NOTE,))
    if name == "imagenet":
        return _files(name, _imagenet(root, split), fitting, chosen, skip_bad, name)
    if name == restricted_imagenet.NAME:
        merged, note = restricted_imagenet.find(root, split)
        return _files(name, merged, fitting, chosen, skip_bad, name, (note,))
    if name == "photos":
        return _fit(photos(split), fitting, chosen)
    if name in READERS:
        return _fit(_array_set(name, split, root), fitting, chosen)
    if is_scenes(name):
        raise PassbandError(f"{name} holds boxes, for a detector such as rtdetr:BACKBONE or a recipe of task=detection")
    forms = ["folder:PATH", "images:PATH", "shards:PLACE"]
    forms += [*READERS, "photos", "cifar10-jpeg", "imagenet", restricted_imagenet.NAME]
    raise unknown("data set", name, forms, hint="a folder of yours is folder:PATH or images:PATH")


def stream(name: str, *, size: tuple[int, int], data_dir: Path | None = None) -> StreamSet:
    """Return a training split whose photographs are read anew in each epoch.

    Args:
        name: ``shards:PLACE``, ``folder:PATH`` or ``imagenet``.
        size: Height and width to come to, as in :func:`load`.
        data_dir: As in :func:`load`.

    Raises:
        PassbandError: for another name, data that is not there or cannot be read.
    """
    kind, _, path = name.partition(":")
    fitting = Fitting.of(size, None)
    if kind == "shards" and path:
        return stream_source.shards(name, path, "train", fitting)
    if kind == "folder" and path:
        return stream_source.folder(name, Path(path).expanduser(), "train", fitting)
    if name == "imagenet":
        root = data_folder() if data_dir is None else Path(data_dir).expanduser()
        return stream_source.folder(name, _imagenet_folder(root), "train", fitting)
    raise PassbandError(f"data.stream reads shards:PLACE, folder:PATH or imagenet; leave it out for {name}")


def is_scenes(name: str) -> bool:
    """Tell whether a name is that of a set with boxes."""
    return name in SCENES or name.startswith("coco:")


def names(data_dir: Path | None = None) -> tuple[tuple[str, str, str], ...]:
    """List every set: its name, a line about it, and where its data is looked for."""
    root = data_folder() if data_dir is None else data_dir
    read_here = [(name, reader.line, str(root / reader.folder)) for name, reader in READERS.items()]
    return (
        ("photos", "patches of photographs, 32x32 gray, 15 classes, 3,600 + 825", "built in (scikit-image)"),
        *read_here,
        ("cifar10-jpeg", "CIFAR-10 after JPEG, 32x32, 10 classes", str(root / "cifar10-jpeg")),
        ("imagenet", "photographs, 1,000 classes, 1,281,167 + 50,000, as class folders", str(root / "imagenet")),
        (
            restricted_imagenet.NAME,
            "nine classes merged of ImageNet's, 12,150 + 10,150 photographs",
            str(root / "imagenet"),
        ),
        ("folder:PATH", "your class folders in PATH/train and PATH/test or PATH/val", "PATH"),
        ("images:PATH", "your flat folder of images without labels", "PATH"),
        ("shards:PLACE", "WebDataset shards in a folder or under a URL; `passband data shards` packs them", "PLACE"),
    )


def _array_set(name: str, split: Split, root: Path) -> ImageSet:
    pixels, labels, classes = read(name, split, root)
    mark = fingerprint(f"{name}/{split}", pixels, labels)
    if pixels.ndim == 3:
        pixels = np.repeat(pixels[..., None], 3, axis=3)
    return ImageSet(name, pixels, labels, classes, mark)


def _cifar10_jpeg(root: Path, split: Split) -> Listing:
    if not (root / "cifar10-jpeg").is_dir():
        raise MissingData(
            "cifar10-jpeg",
            f"cifar10-jpeg is not in {root}; `passband data cifar10-jpeg` makes it from CIFAR-10, or name "
            "another folder with --data-dir or PASSBAND_DATA",
        )
    return list_classes(root / "cifar10-jpeg", split)


def _imagenet(root: Path, split: Split) -> Listing:
    return list_classes(_imagenet_folder(root), split)


def _imagenet_folder(root: Path) -> Path:
    if not (root / "imagenet").is_dir():
        raise MissingData("imagenet", f"imagenet is not in {root}: {restricted_imagenet.PLACE}")
    return root / "imagenet"


def _fit(whole: ImageSet, fitting: Fitting, chosen: Chosen) -> ImageSet:
    """Cut a set that lies in memory to the limit and bring it to size."""
    taken = whole if chosen[0] is None else whole.take(*chosen)
    if fitting.leaves(taken.size):
        return taken
    mark, target = derive(taken.fingerprint, fitting.mark), fitting.size
    if target and fitting.fit == "pad" and taken.size[0] <= target[0] and taken.size[1] <= target[1]:
        return replace(taken, images=pad(taken.images, target), fingerprint=mark)
    fit = fitting.maker()
    ready = decoded(mark, taken.ids, lambda i: (fit(taken.images[i]), ""), what=taken.name)
    return replace(taken, images=ready.images, fingerprint=mark)


def _files(
    name: str,
    listing: Listing,
    fitting: Fitting,
    chosen: Chosen,
    skip_bad: bool,
    kind: str,
    notes: tuple[str, ...] = (),
) -> ImageSet:
    """Decode the files of a folder, or as many as the limit asks for, once."""
    order = np.arange(len(listing.files)) if chosen[0] is None else permutation(len(listing.files), *chosen)
    fit, paths = fitting.maker(), [listing.root / listing.files[i] for i in order]

    def one(index: int) -> tuple[np.ndarray, Kind]:
        pixels, done = read_file(paths[index])
        return fit(pixels), done

    ready = decoded(_cache_key(listing, order, fitting), list(map(str, paths)), one, skip_bad=skip_bad, what=name)
    kept = order[ready.kept]
    mark = _fingerprint(kind, listing, fitting)
    if not np.array_equal(kept, np.arange(len(listing.files))):
        mark = derive(mark, "subset", kept.astype(np.int64).tobytes())
    return ImageSet(
        name=name,
        images=ready.images,
        labels=np.array(listing.labels, dtype=np.int64)[kept] if listing.labels else None,
        class_names=listing.class_names,
        fingerprint=mark,
        notes=notes + _notes(name, ready.kinds, ready.bad, len(paths)),
        ids=tuple(listing.files[i] for i in kept),
    )


def _cache_key(listing: Listing, order: np.ndarray, fitting: Fitting) -> str:
    lines = [str(listing.root.resolve()), fitting.mark]
    lines += [f"{listing.files[i]}\t{listing.sizes[i]}\t{listing.times[i]}" for i in order]
    return "\n".join(lines)


def _fingerprint(kind: str, listing: Listing, fitting: Fitting) -> str:
    digest = hashlib.sha256(f"{kind}\n{listing.root.name if listing.labels else ''}\n{fitting.mark}\n".encode())
    for file, size in zip(listing.files, listing.sizes, strict=True):
        digest.update(f"{file}\t{size}\n".encode())
    return digest.hexdigest()


def _shards(name: str, place: str, split: Split, fitting: Fitting, chosen: Chosen, skip_bad: bool) -> ImageSet:
    found = shard_images.load(name, place, split, fitting, *chosen, skip_bad)
    return replace(found.images, notes=_notes(name, found.kinds, found.bad, found.asked))


def _notes(name: str, kinds: dict[Kind, int], bad: tuple[str, ...], asked: int) -> tuple[str, ...]:
    said = [f"{name}: {count} of {asked} images {_KINDS[kind]}" for kind, count in sorted(kinds.items())]
    if bad:
        said.append(f"{name}: {len(bad)} of {asked} images were left out; the first: {bad[0]}")
    return tuple(said)
