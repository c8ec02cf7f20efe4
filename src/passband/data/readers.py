"""torchvision's readers of the sets that many use, with their files found, fetched or asked for."""

from __future__ import annotations

import errno
import pickle
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from passband.core.errors import MissingData, PassbandError
from passband.core.store import explain_disk


@dataclass(frozen=True)
class Reader:
    """Name one of torchvision's sets.

    Attributes:
        torchvision: Its class there.
        folder: Where its files lie inside the data folder.
        line: What it is, for listings.
    """

    torchvision: str
    folder: str
    line: str


READERS = {
    "fashion-mnist": Reader("FashionMNIST", "FashionMNIST", "clothing, 28x28 gray, 10 classes, 60,000 + 10,000"),
    "mnist": Reader("MNIST", "MNIST", "handwritten digits, 28x28 gray, 10 classes, 60,000 + 10,000"),
    "cifar10": Reader("CIFAR10", "cifar-10-batches-py", "photographs, 32x32, 10 classes, 50,000 + 10,000"),
    "cifar100": Reader("CIFAR100", "cifar-100-python", "photographs, 32x32, 100 classes, 50,000 + 10,000"),
}


def read(name: str, split: str, data_dir: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Read a set from ``data_dir``, or download it there.

    Returns:
        Pixels uint8 [N, H, W] or [N, H, W, 3], labels int64 [N], names of the classes.

    Raises:
        PassbandError: when the set is neither there nor to be had, or its files are corrupt.
    """
    reader = READERS[name]
    if not (data_dir / reader.folder).is_dir():
        _download(name, reader, data_dir)
    try:
        found = _open(reader, data_dir, split)
        pixels, labels = np.asarray(found.data), np.asarray(found.targets, dtype=np.int64)
        if not len(pixels) == len(labels) > 0:
            raise ValueError(f"{len(pixels)} images and {len(labels)} labels")
    except (
        RuntimeError,
        OSError,
        ValueError,
        AssertionError,
        EOFError,
        KeyError,
        pickle.UnpicklingError,
    ) as error:
        raise PassbandError(
            f"{name} in {data_dir / reader.folder} cannot be read ({_first_line(error)}); "
            "remove that folder and give the same command again, online"
        ) from error
    return pixels, labels, tuple(found.classes)


def _open(reader: Reader, root: Path, split: str, download: bool = False) -> Any:
    from torchvision import datasets

    return getattr(datasets, reader.torchvision)(str(root), train=split == "train", download=download)


def _download(name: str, reader: Reader, data_dir: Path) -> None:
    """Fetch a set into a folder of its own first, so that what lies in the data folder is whole."""
    with explain_disk(data_dir / reader.folder):
        data_dir.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=data_dir, prefix=f".{name}."))
        try:
            _open(reader, temporary, "train", download=True)
            (temporary / reader.folder).replace(data_dir / reader.folder)
        except (RuntimeError, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                with explain_disk(data_dir / reader.folder):
                    raise
            raise MissingData(
                name,
                f"{name} is not in {data_dir} and could not be downloaded ({_first_line(error)}): give the "
                f"same command online, or put torchvision's folder {reader.folder}/ there, or name another "
                "folder with --data-dir or PASSBAND_DATA",
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
