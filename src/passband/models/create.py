"""Any network by name, as a classifier of images in [0, 1]."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from passband.core.errors import NotApplicable, PassbandError
from passband.core.spec import ImageSpec
from passband.models import spartan_checkpoint
from passband.models.detectors import is_detector
from passband.models.file_source import PATTERN, from_file, metadata_of
from passband.models.metadata import GIVE_IMAGES
from passband.models.origin import Arguments, Origin, Size
from passband.models.state import untouched
from passband.models.timm_source import cfg_of, from_timm, names
from passband.models.torchvision_source import PREFIX, from_torchvision
from passband.models.weights_file import WeightsFile, load_weights, read_weights
from passband.models.wrap import Classifier

__all__ = ["Gives", "create", "names", "wrap_module"]

Gives = Literal["logits", "images", "boxes"]
"""What a network gives for images: logits [batch, classes], images [batch, channel, height, width] like them, or boxes,
which a detector does (:mod:`passband.models.detectors`)."""


def create(
    name: str,
    *,
    classes: int | None = None,
    channels: int = 3,
    size: int | tuple[int, int] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    pretrained: bool = False,
    weights: Path | str | None = None,
    class_names: tuple[str, ...] = (),
    gives: Gives = "logits",
    **arguments: Any,
) -> Classifier:
    """Make a classifier by name, or another network of images in [0, 1].

    Args:
        name: A timm name (``"resnet18"``, ``"hf-hub:OWNER/NAME"``, passband's own), ``"torchvision:NAME"``
            or ``"path/to/file.py:factory"``.
        classes: Outputs; the model's own number when None.
        channels: Input channels.
        size: Height and width of the input in pixels; the model's own when None.
        mean: Per channel, of pixels in [0, 1]; wins over the model's metadata.
        std: As ``mean``.
        pretrained: Whether to load the weights that timm or torchvision has for the name.
        weights: A file to load weights from instead.
        class_names: One name per output; wins over what the model's metadata says.
        gives: What the network is to give; one that gives images has no classes, 0 in its spec.
        **arguments: Passed to the network's own constructor.

    A checkpoint of SpaRTAN's released code, under a name that begins with ``spartan_``, brings the network's sizes and
    ImageNet's mean and std with it; arguments that are given win.

    Returns:
        The classifier, in training mode as the network's factory left it.

    Raises:
        PassbandError: for an unknown name, arguments that do not fit, weights that cannot be had or do not
            fit, or a mean and std that cannot be known.
    """
    if is_detector(name):
        raise NotApplicable(f"'{name}' is a detector, and a classifier is needed here; `passband probe` asks detectors")
    if weights is not None and pretrained:
        raise PassbandError("pretrained weights and a weights file exclude each other; give one of them")
    if classes is not None and classes < 2:
        raise PassbandError(f"a classifier needs at least 2 classes; got {classes}")
    shape = (size, size) if isinstance(size, int) else size
    file = read_weights(Path(weights)) if weights is not None else None
    if file is not None and name.startswith("spartan_") and spartan_checkpoint.is_released(file.tensors):
        arguments = spartan_checkpoint.sizes(file.tensors, str(file.path)) | arguments
        file = _of_the_released_code(file)
    if file is not None and classes is None:
        classes = _classes_in(name, file)
    origin = _find(name, classes, channels, shape, pretrained, arguments)
    if file is not None:
        load_weights(origin.inner, file)
        origin = _with_metadata(origin, file)
    return _classifier(name, origin, classes, channels, mean, std, class_names, gives)


def wrap_module(
    module: nn.Module,
    *,
    size: int | tuple[int, int] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    class_names: tuple[str, ...] = (),
) -> Classifier:
    """Make a classifier of a network that is already there; one that is a classifier comes back as it is.

    What its images are is read from its ``spec``, ``pretrained_cfg`` or ``default_cfg``, or its ``mean`` and ``std``.

    Args:
        module: Images in, logits out.
        size: Height and width of the input in pixels; wins over the module's metadata.
        mean: Per channel, of pixels in [0, 1]; wins over the module's metadata.
        std: As ``mean``.
        class_names: One name per output.

    Raises:
        PassbandError: when size, mean or std cannot be known.
    """
    if isinstance(module, Classifier):
        return module
    origin = metadata_of(module)
    if size is not None:
        origin = replace(origin, size=(size, size) if isinstance(size, int) else size)
    return _classifier(type(module).__name__, origin, None, 3, mean, std, class_names)


def _classifier(
    name: str,
    origin: Origin,
    classes: int | None,
    channels: int,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    class_names: tuple[str, ...],
    gives: Gives = "logits",
) -> Classifier:
    origin = _normalization(name, origin, channels, mean, std)
    if origin.size is None:
        raise PassbandError(f"the input size of '{name}' is not known; give it: --size, or size in a recipe's data")
    answer = _answer(name, origin, channels, origin.size)
    if gives == "images":
        return _image_network(name, origin, channels, origin.size, answer)
    count = _count_classes(name, answer)
    if classes is not None and classes != count:
        raise PassbandError(f"'{name}' has {count} classes, {classes} were asked for; pass its own argument for it")
    spec = ImageSpec(
        origin.size, origin.mean, origin.std, origin.source, count, channels, origin.fit, origin.crop_pct,
        origin.interpolation, _names_of(origin, class_names, count), origin.crop_mode,
    )  # fmt: skip
    return Classifier(origin.inner, spec)


def _find(
    name: str,
    classes: int | None,
    channels: int,
    size: Size | None,
    pretrained: bool,
    arguments: Arguments,
) -> Origin:
    if name.startswith(PREFIX):
        return from_torchvision(name, classes, channels, size, pretrained, arguments)
    if PATTERN.fullmatch(name):
        if pretrained:
            raise PassbandError(f"'{name}' is your own: load its weights in the factory, or with --weights FILE")
        return from_file(name, classes, channels, size, arguments)
    return from_timm(name, classes, channels, size, pretrained, arguments)


def _classes_in(name: str, file: WeightsFile) -> int | None:
    """Read the number of classes off the file's classifier, where timm's metadata names it."""
    if name.startswith(PREFIX) or PATTERN.fullmatch(name):
        return None
    classifier = cfg_of(name).get("classifier")
    for key, tensor in file.tensors.items():
        if isinstance(classifier, str) and f".{key}".endswith(f".{classifier}.weight"):
            return len(tensor)
    return None


def _with_metadata(origin: Origin, file: WeightsFile) -> Origin:
    """Take mean, std and class names from the file; our own networks learn on pixels of any scale."""
    origin = replace(origin, plain=False, class_names=file.class_names or origin.class_names)
    if file.mean is None or file.std is None:
        return origin
    return replace(origin, mean=file.mean, std=file.std, source=file.source)


def _of_the_released_code(file: WeightsFile) -> WeightsFile:
    """Return a released SpaRTAN as our network has it; its code normalizes by ImageNet's mean and std."""
    tensors = spartan_checkpoint.to_ours(file.tensors, str(file.path))
    source = "SpaRTAN's released code, which normalizes by ImageNet's"
    return replace(file, tensors=tensors, mean=IMAGENET_DEFAULT_MEAN, std=IMAGENET_DEFAULT_STD, source=source)


def _normalization(
    name: str, origin: Origin, channels: int, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> Origin:
    if (mean is None) != (std is None):
        raise PassbandError("mean and std belong together: give both --mean and --std, or neither")
    if mean is not None:
        return replace(origin, mean=mean, std=std, source="--mean/--std")
    if origin.mean is not None and origin.std is not None and len(origin.mean) in (1, channels):
        return origin
    if origin.plain:
        return replace(origin, mean=None, std=None, source=origin.source or "no normalization")
    raise PassbandError(
        f"mean and std of '{name}' for {channels} channels are not in its metadata; give --mean and --std as "
        "it was trained with (0 and 1 for pixels in [0, 1] as they are)"
    )


def _image_network(name: str, origin: Origin, channels: int, size: tuple[int, int], answer: Any) -> Classifier:
    """Wrap a network that gives images; the mean and std are those of its input."""
    if not isinstance(answer, torch.Tensor) or answer.shape != (1, channels, *size):
        raise PassbandError(
            f"'{name}' gives {_came(answer)} for one image; images {[1, channels, *size]} are needed here, as "
            f"{' and '.join(GIVE_IMAGES)} gives them"
        )
    spec = ImageSpec(size, origin.mean, origin.std, origin.source, 0, channels)
    return Classifier(origin.inner, spec)


def _answer(name: str, origin: Origin, channels: int, size: tuple[int, int]) -> Any:
    """Run one image of zeros, which shows that the network takes this size, and what it gives."""
    first = next(origin.inner.parameters(), torch.zeros(()))
    image = torch.zeros(1, channels, *size, device=first.device, dtype=first.dtype)
    try:
        with untouched(origin.inner), torch.no_grad():
            return origin.inner(image)
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        raise PassbandError(
            f"'{name}' does not take images of {channels}×{size[0]}×{size[1]} "
            f"({type(error).__name__}: {line}); give another size or number of channels"
        ) from error


def _count_classes(name: str, logits: Any) -> int:
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
        raise PassbandError(
            f"'{name}' gives {_came(logits)} for one image; a classifier gives logits [1, classes], classes 2 or more; "
            "a network that gives images is trained with task=unshuffle"
        )
    return int(logits.shape[1])


def _came(answer: Any) -> list[int] | str:
    return list(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__


def _names_of(origin: Origin, given: tuple[str, ...], count: int) -> tuple[str, ...]:
    if given and len(given) != count:
        raise PassbandError(f"{len(given)} class names were given for a model of {count} classes; give one per class")
    names_found = given or origin.class_names
    return names_found if len(names_found) == count else ()
