"""Nine classes that ImageNet's are merged into: which folders each takes, and which of their images."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from passband.core.errors import MissingData
from passband.data.dataset import permutation
from passband.data.folders import SPLITS, Listing, list_flat

NAME = "restricted-imagenet"
RANGES = {
    "dog": (151, 268),
    "cat": (281, 285),
    "frog": (30, 32),
    "turtle": (33, 37),
    "bird": (80, 100),
    "monkey": (365, 382),
    "fish": (389, 397),
    "crab": (118, 121),
    "insect": (300, 319),
}
"""First and last index, among ImageNet's 1,000 classes, of what each class merges.

**Source**: the Restricted ImageNet of Tsipras et al., *Robustness may be at odds with accuracy*, 2018, appendix;
high-frequency cites them and has nine merged classes too, but does not name them (its appendix B.1).
"""
PER_CLASS = 1350
"""Training images of each class, as high-frequency has; which ones they were it does not say."""
PLACE = (
    "put the images of ILSVRC 2012 (image-net.org gives them to its members) into imagenet/train/CLASS/ and "
    "imagenet/val/CLASS/ there, or name another folder with --data-dir or PASSBAND_DATA"
)


@cache
def members() -> dict[str, tuple[str, ...]]:
    """Return the WordNet ids, the names of ImageNet's class folders, that each class merges."""
    from timm.data import ImageNetInfo

    ids = ImageNetInfo().label_names()
    return {name: tuple(ids[first : last + 1]) for name, (first, last) in RANGES.items()}


def find(root: Path, split: str) -> tuple[Listing, str]:
    """List the images of the nine classes in ``root/imagenet``, where other classes' folders are not looked into.

    Args:
        root: Where sets lie.
        split: ``"train"`` takes `PER_CLASS` images of each class, the first of one fixed permutation of its files,
            ``"test"`` all validation images.

    Returns:
        The files, with the nine classes as labels, and a sentence on what they are.

    Raises:
        MissingData: when one of the merged classes has no folder, or a class has too few training images.
        PassbandError: when a folder holds no images.
    """
    folder = _split_folder(root / "imagenet", split)
    files: list[tuple[str, int, int]] = []
    labels: list[int] = []
    for label, (name, ids) in enumerate(members().items()):
        found = [file for one in ids for file in _images(folder, one)]
        if split == "train":
            if len(found) < PER_CLASS:
                raise MissingData(
                    NAME,
                    f"{NAME} takes {PER_CLASS:,} training images of each class, and {folder} holds {len(found):,} of "
                    f"'{name}' ({', '.join(ids[:3])} …): {PLACE}",
                )
            found = [found[index] for index in sorted(permutation(len(found), PER_CLASS, 0))]
        files += found
        labels += [label] * len(found)
    names, sizes, times = zip(*files, strict=True)
    return Listing(folder, names, sizes, times, tuple(labels), tuple(members())), _note(split, labels)


def _split_folder(imagenet: Path, split: str) -> Path:
    wanted = [one for ids in members().values() for one in ids]
    missing = {
        imagenet / name: [one for one in wanted if not (imagenet / name / one).is_dir()]
        for name in reversed(SPLITS[split])
    }
    folder = min(missing, key=lambda place: len(missing[place]))
    if missing[folder]:
        raise MissingData(
            NAME,
            f"{NAME} takes {len(wanted)} of ImageNet's classes, and {len(missing[folder])} of them have no folder in "
            f"{folder} (the first: {missing[folder][0]}): {PLACE}",
        )
    return folder


def _images(folder: Path, one: str) -> list[tuple[str, int, int]]:
    found = list_flat(folder / one)
    names = (f"{one}/{file}" for file in found.files)
    return list(zip(names, found.sizes, found.times, strict=True))


def _note(split: str, labels: list[int]) -> str:
    counts = {name: labels.count(label) for label, name in enumerate(RANGES)}
    if split == "train":
        which = f"{PER_CLASS:,} training images of each, chosen by a fixed seed"
    else:
        which = "all validation images, " + ", ".join(f"{count:,} {name}" for name, count in counts.items())
    return f"{NAME}: {sum(map(len, members().values()))} of ImageNet's classes merged into nine, {which}"
