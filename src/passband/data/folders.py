"""Folders of images: which files there are, of which class, and what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from passband.core.errors import PassbandError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
SPLITS = {"train": ("train",), "test": ("test", "val")}


@dataclass(frozen=True)
class Listing:
    """Hold the image files of a set.

    Attributes:
        root: The folder that ``files`` are relative to, as the user wrote it.
        files: Relative names, sorted by class and name.
        sizes: Bytes of each; -1 for a file that is not there (a broken link).
        times: When each was changed, in nanoseconds.
        labels: Class of each file; empty for a flat folder.
        class_names: Names of the class folders, sorted.
    """

    root: Path
    files: tuple[str, ...]
    sizes: tuple[int, ...]
    times: tuple[int, ...]
    labels: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ()


def list_classes(path: Path, split: str) -> Listing:
    """List ``path``'s class folders in ``train/``, or in ``test/`` or ``val/``.

    Raises:
        PassbandError: for a missing folder, split or class folder, an empty class, other classes by split.
    """
    root = _split_folder(path, split)
    names = _class_folders(root)
    _same_classes(path, root, names)
    found: list[tuple[str, int, int]] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        files = _images(root / name, name, deep=True)
        if not files:
            raise PassbandError(f"class folder {root / name} holds no images; fill it or remove it everywhere")
        found += files
        labels += [label] * len(files)
    files_, sizes, times = zip(*found, strict=True)
    return Listing(root, files_, sizes, times, tuple(labels), tuple(names))


def list_flat(path: Path) -> Listing:
    """List the images that lie in ``path`` itself.

    Raises:
        PassbandError: for a missing folder, or one without images.
    """
    _need_folder(path)
    found = _images(path, "", deep=False)
    if not found:
        inside = "; its folders can be read as classes with folder:PATH" if _folders(path) else ""
        raise PassbandError(f"{path} holds no images ({_extensions()}){inside or '; give a folder of image files'}")
    files, sizes, times = zip(*found, strict=True)
    return Listing(path, files, sizes, times)


def _split_folder(path: Path, split: str) -> Path:
    _need_folder(path)
    for name in SPLITS[split]:
        if (path / name).is_dir():
            return path / name
    wanted = " or ".join(f"{name}/" for name in SPLITS[split])
    inside = _folders(path)
    shown = ", ".join(f"{name}/" for name in inside[:5]) + (f" and {len(inside) - 5} more" if len(inside) > 5 else "")
    raise PassbandError(
        f"{path} has no {wanted} (found: {shown or 'no folders'}); put class folders into train/ and "
        "test/ or val/, or name a flat folder as images:PATH"
    )


def _class_folders(root: Path) -> list[str]:
    names = _folders(root)
    if not names:
        raise PassbandError(f"{root} has no class folders; put each class's images into a folder of its name")
    if all(name.isdigit() for name in names):
        return sorted(names, key=int)  # as text, 10 would come before 2 and every label after it be wrong
    return names


def _same_classes(path: Path, root: Path, names: Sequence[str]) -> None:
    for other in ("train", "test", "val"):
        if path / other == root or not (path / other).is_dir():
            continue
        for here, there, odd in (
            (root, path / other, sorted(set(names) - set(_folders(path / other)))),
            (path / other, root, sorted(set(_folders(path / other)) - set(names))),
        ):
            if odd:
                raise PassbandError(
                    f"class '{odd[0]}' is in {here} but not in {there} ({len(odd)} such); "
                    "give both the same class folders"
                )


def _need_folder(path: Path) -> None:
    if not path.is_dir():
        what = "is a file" if path.exists() else "is not there"
        raise PassbandError(f"{path} {what}; give a folder of images")


def _folders(path: Path) -> list[str]:
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _images(folder: Path, prefix: str, *, deep: bool) -> list[tuple[str, int, int]]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{prefix}/{entry.name}" if prefix else entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                found += _images(Path(entry.path), name, deep=True) if deep else []
            elif Path(entry.name).suffix.lower() in EXTENSIONS:
                broken = entry.is_symlink() and not Path(entry.path).exists()
                status = None if broken else entry.stat()
                found.append((name, status.st_size, status.st_mtime_ns) if status else (name, -1, 0))
    return sorted(found)


def _extensions() -> str:
    return ", ".join(sorted(name[1:] for name in EXTENSIONS))
