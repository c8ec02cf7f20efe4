"""A recipe: all that decides a trained weight, validated, printable and hashed whole."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from passband.core.errors import PassbandError, shortened, unknown
from passband.core.options import fraction, split_assignments
from passband.core.plain import check_plain, read_yaml

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def _number(value: Any) -> Any:
    # 1e999 stays the text that it is: no part takes it.
    number = float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else math.inf
    return number if math.isfinite(number) else value


class Part(BaseModel):
    """Name a part and its arguments; it is looked up when training starts."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @model_validator(mode="before")
    @classmethod
    def _numbers(cls, fields: Any) -> Any:
        # YAML 1.1 reads 1e-3 as a string: a number is meant.
        if not isinstance(fields, dict):
            return fields
        return {key: value if key == "name" else _number(value) for key, value in fields.items()}

    @property
    def arguments(self) -> dict[str, Any]:
        """Return what stands beside the name, with ``"8/255"`` read as a number."""
        return {key: fraction(value) for key, value in (self.model_extra or {}).items()}


def _false_is_null(value: bool | None) -> bool | None:
    """Keep one way of saying no: a null field takes no part in the digest."""
    return value or None


class DataPart(BaseModel):
    """Say what a training sees.

    Attributes:
        name: A set's name, as ``passband list data`` shows them, or ``folder:PATH``.
        size: Side of the square input in pixels; smaller images are zero-padded, larger ones resized and cropped.
        part: Number of training images, of one fixed seeded permutation; null takes all.
        view: A view of the images, such as ``{name: band_limited, cutoff: 12}``; null takes them as they are.
        shuffle_labels: Whether the training labels are put in another, fixed, order.
        stream: Whether the training photographs are read anew in each epoch, as a set of ImageNet's size must be, and
            not held at their final size; a ``resized-crop`` is then cut from the photograph itself. A set of shards
            (``shards:PLACE``) is always streamed. Null holds them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "photos"
    size: int = Field(default=32, ge=4, le=1024)
    part: int | None = Field(default=None, ge=1)
    view: Part | None = None
    shuffle_labels: bool = False
    stream: bool | None = None

    _plain_stream = field_validator("stream")(_false_is_null)


class Normalization(BaseModel):
    """Give the mean and the standard deviation, per channel, of pixels in [0, 1]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Average(BaseModel):
    """Keep an exponential moving average of the weights: the share ``decay`` of it stays at each step.

    Attributes:
        decay: That share.
        warmup: In step t the share is decay · (1 - exp(-t / warmup)), so that the first weights are soon forgotten;
            null keeps it the same in all steps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decay: float = Field(default=0.999, ge=0, lt=1)
    warmup: float | None = Field(default=None, gt=0)

    def at(self, step: int) -> float:
        """Return the share that stays at a step, counted from 1."""
        return self.decay if self.warmup is None else self.decay * (1 - math.exp(-step / self.warmup))


class EarlyStop(BaseModel):
    """End an adversarial training whose robustness collapses, and keep the weights of the epoch before.

    After each epoch the accuracy on the first training batch is measured under a PGD of the training's own ε, with
    steps of ε/4 from a random start.

    Attributes:
        drop: Fall of that accuracy since the epoch before above which the training ends, a fraction.
        steps: Steps of the PGD.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    drop: float = Field(default=0.2, gt=0, lt=1)
    steps: int = Field(default=5, ge=1)


def _part(name: str, **arguments: Any) -> Part:
    return Part(name=name, **arguments)


class Recipe(BaseModel):
    """Hold all that decides a trained weight.

    A part that is null is left out of the digest, so that a field added later changes no old one; a default that is
    not null never changes. Parts are applied in this order: model, filters, smooth, separate, quantize, learn.

    Attributes:
        task: ``classification``; ``unshuffle`` puts the pixels of images back in order, which one fixed permutation
            (seed 0) moved, and needs a model that gives images: ``{name: conv_mixer_pixels}``. Labels are not read.
            ``detection`` finds objects, and needs a detector (``{name: "rtdetr:spartan_xt", neck: r18}``), a set
            with boxes (``{name: coco128, size: 640}``) and augmentations for boxes.
        filters: How depthwise kernels are drawn: ``different``, ``same``, ``box`` or ``identity``.
        quantize: Puts weights and activations on few levels: arguments of ``weights.quantize``, such as
            ``{bits: 4, frequency_aware: true}``, and how it learns (``train/quantized.py``): ``rates`` and
            ``weight_decay`` of what a quantizer learns, ``progressive: [32, 5]`` to come down to the bits by steps.
        normalize: Mean and std inside the model; null measures them on the training images, ``"none"`` leaves
            pixels as they are.
        augment: In order: ``crop``, ``flip``, ``resized-crop``, ``randaugment``, ``timm-randaugment``, ``erasing``
            (``{name: erasing, fill: mean}`` puts the mean color in place of noise). Of ``detection``:
            ``photometric``, ``zoom-out``, ``iou-crop``, ``flip``, ``multi-scale``.
        learn: Which mixers learn.
        learn_options: Further arguments of ``weights.learn``: ``both``, ``attention``, ``roles``.
        attack: Trains on what this attack makes of each batch; null trains on plain images. ``{name: pgd, steps: 7}``
            is PGD-7 (the attack's own default is 10 steps), ``mode: train`` beside it crafts in training mode;
            ``{name: fgsm}`` is FGSM from the image itself, ``{name: ffgsm, mode: train}`` FGSM-RS.
        scheme: How it is learned from, where that is not the cross-entropy of the attack's images:
            ``{name: trades, beta: 6}``, or ``{name: free, replays: 8, eps: 8/255}``, whose epochs cost ``replays``
            times as much (give an eighth of them), or ``{name: mixed, how: cutmix, on: adversarial}``, mixtures of
            attacked images, ``on: clean`` attacked mixtures; ``{name: mixup}`` mixes plain images,
            ``{name: mixup-or-cutmix, mixup: 0.2, cutmix: 1}`` each batch in one of the two ways.
        early_stop: ``{drop: 0.2, steps: 5}`` ends the training when its PGD accuracy falls by more than 20 points
            within an epoch, as FGSM-RS is used with, and goes back to the epoch before.
        optimizer: ``decay: kernels`` beside its own arguments decays no biases, norms and other vectors, nor what the
            network says. ``backbone: 1.0e-5`` gives a detector's backbone a rate of its own.
        clip: Largest length of a step's whole gradient; a longer one is shortened to it.
        schedule: ``{name: cosine, warmup: 20, start: 0.04, final: 4.0e-4}``: epochs of a linear rise, and the factors
            of the rate before it and at the end.
        pieces: Cuts each batch into so many pieces, which the network sees one after the other (a batch of 2048 on a
            device that holds 512): the step is that of the batch's mean loss, but batch statistics, the partners of a
            mixture and other draws are each piece's own, as is the number of objects that a detector's losses are
            divided by. Null sees it whole.
        ema: ``{decay: 0.999}`` keeps an exponential moving average of the weights, which is then what is saved;
            ``warmup: 2000`` beside it lets it begin fast.
        precision: ``bf16`` runs the training's convolutions and products in bfloat16; evaluation is in float32.
            ``float64`` trains in double precision, for comparisons that rounding would spoil.
        sync_batchnorm: Where several devices share a batch, batch norms normalize by the statistics of all of it, as
            one device would; null by those of each device's share. With one device it changes nothing.
        revision: Raised when a bug that changed weights was mended.

    >>> Recipe().with_settings(["epochs=3", "model.depth=2"]).model.arguments["depth"]
    2
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["classification", "unshuffle", "detection"] = "classification"
    model: Part = _part("separable_resnet", depth=1, width=16, multiplier=9)
    filters: Literal["different", "same", "box", "identity"] | None = None
    smooth: dict[str, Any] | None = None
    separate: dict[str, Any] | None = None
    quantize: dict[str, Any] | None = None
    learn: Literal["all", "channels", "spatial"] = "all"
    learn_options: dict[str, Any] | None = None
    data: DataPart = DataPart()
    normalize: Literal["none"] | Normalization | None = None
    augment: tuple[Part, ...] = (_part("crop", pad=4), _part("flip"))
    attack: Part | None = None
    scheme: Part | None = None
    early_stop: EarlyStop | None = None
    optimizer: Part = _part("sgd", lr=0.1, momentum=0.9, weight_decay=5.0e-4)
    schedule: Part = _part("cosine")
    epochs: int = Field(default=10, ge=1)
    batch: int = Field(default=128, ge=2)
    pieces: int | None = Field(default=None, ge=2)
    clip: float | None = Field(default=None, gt=0)
    ema: Average | None = None
    precision: Literal["float32", "bf16", "float64"] = "float32"
    sync_batchnorm: bool | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)
    revision: int = 1

    _plain_sync = field_validator("sync_batchnorm")(_false_is_null)

    @model_validator(mode="after")
    def _fits_its_task(self) -> Recipe:
        if self.task == "unshuffle":
            parts = {"attack": self.attack, "scheme": self.scheme, "early_stop": self.early_stop}
            for name, part in parts.items():
                if part is not None:
                    raise ValueError(f"task unshuffle has no classes to attack; leave {name} null")
            if self.data.shuffle_labels:
                raise ValueError("task unshuffle reads no labels; leave data.shuffle_labels false")
        return self

    @model_validator(mode="after")
    def _fits_detection(self) -> Recipe:
        if self.task != "detection":
            return self
        whole: dict[str, Any] = {
            "filters": self.filters, "smooth": self.smooth, "separate": self.separate, "quantize": self.quantize,
            "learn_options": self.learn_options, "normalize": self.normalize, "attack": self.attack,
            "scheme": self.scheme, "early_stop": self.early_stop, "data.view": self.data.view,
            "data.shuffle_labels": self.data.shuffle_labels or None,
        }  # fmt: skip
        for name, part in whole.items():
            if part is not None:
                raise ValueError(f"task detection learns a whole detector from images as they are; leave {name} out")
        if self.precision == "float64":
            raise ValueError("task detection trains in float32 or bf16; its library's operators know no float64")
        if self.learn != "all":
            raise ValueError(f"task detection learns all of a detector; set learn to all, not {self.learn}")
        return self

    @model_validator(mode="after")
    def _pieces_hold_two_images(self) -> Recipe:
        if self.pieces is not None and self.batch < 2 * self.pieces:
            raise ValueError(
                f"a piece of a batch holds two images or more; {self.pieces} pieces of a batch of {self.batch} do not"
            )
        return self

    @model_validator(mode="after")
    def _synchronizes_whole_batches(self) -> Recipe:
        if self.sync_batchnorm and self.pieces is not None:
            raise ValueError("sync_batchnorm normalizes over the whole batch, which pieces cuts; leave one of them out")
        return self

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Recipe:
        """Validate plain data.

        Raises:
            PassbandError: for an unknown field (with the nearest one) or a value that a field refuses.
        """
        try:
            check_plain(fields)
        except ValueError as error:
            raise PassbandError(f"a recipe is text, finite numbers, true, false and null by name: {error}") from None
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise _explain(error) from None

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a YAML file.

        Raises:
            PassbandError: when it is missing, is not YAML, or does not hold a recipe.
        """
        try:
            fields = read_yaml(path.read_text())
        except OSError:
            raise PassbandError(f"there is no recipe at {path}; give the path of a YAML file") from None
        except ValueError as error:
            raise PassbandError(f"{path} holds no recipe: {error}; fields such as 'epochs: 10' were needed") from None
        if not isinstance(fields, dict):
            raise PassbandError(f"{path} holds no recipe: fields such as 'epochs: 10' were needed")
        return cls.of(fields)

    def with_settings(self, assignments: Iterable[str]) -> Recipe:
        """Return a copy with ``["epochs=2", "model.depth=3", "attack.name=pgd"]`` set.

        Values are YAML. A part whose name is set to another one loses the old part's arguments.

        Raises:
            PassbandError: for a name that is no field, or a value that a field refuses.
        """
        fields = self.plain()
        # A new name empties its part, so names go first, in whatever order they were given.
        given = sorted(split_assignments(assignments).items(), key=lambda item: not item[0].endswith(".name"))
        for path, text in given:
            try:
                value = read_yaml(text)
            except ValueError as error:
                raise PassbandError(f"--set {path}={text[:80]}: {error}") from None
            _set(fields, path.split("."), value, path)
        return Recipe.of(fields)

    def plain(self) -> dict[str, Any]:
        """Return the recipe as plain data, null fields left out; among a part's options null stays, as a value."""
        fields = _without_null(self.model_dump(mode="json"))
        return fields | {name: _without_null(fields[name]) for name in ("data", "ema") if name in fields}

    def text(self) -> str:
        """Return the recipe as YAML."""
        return yaml.safe_dump(self.plain(), sort_keys=False)

    def digest(self, data: str) -> str:
        """Return the SHA-256, in hex, of the recipe and of the fingerprint of its ``data``.

        A folder's path takes no part: the fingerprint says what lies there.
        """
        fields = self.plain()
        fields["data"] = {**fields["data"], "name": fields["data"]["name"].partition(":")[0]}
        document = json.dumps({"recipe": _canonical(fields), "data": data}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(document.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    """Write equal numbers alike: 8/255 as its quotient, 1.0 as 1."""
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    value = fraction(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _without_null(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def _set(fields: dict[str, Any], keys: list[str], value: Any, path: str) -> None:
    if keys[0] not in Recipe.model_fields:
        raise unknown("recipe field", keys[0], Recipe.model_fields)
    *parents, last = keys
    inner: Any = fields
    for key in parents:
        if inner.get(key) is None:
            inner[key] = {}
        inner = inner[key]
        if not isinstance(inner, dict):
            raise PassbandError(f"--set {path}: '{key}' holds no further fields")
    if last == "name" and parents and parents[0] != "data" and inner.get("name") != value:
        inner.clear()
    inner[last] = value


_OWNERS = {"data": DataPart, "normalize": Normalization, "ema": Average, "early_stop": EarlyStop}


def _explain(error: ValidationError) -> PassbandError:
    # Where a field takes a word or a mapping, the complaint about the kind that came is the useful one.
    found = error.errors()
    if not found[0]["loc"]:
        return PassbandError(f"recipe: {found[0]['msg'].removeprefix('Value error, ')}")
    mappings = [one for one in found if one["loc"][-1] != "literal['none']"]
    first = (mappings or found)[0] if not isinstance(found[0]["input"], str) else found[0]
    place = ".".join(str(key) for key in first["loc"])
    if first["type"] == "extra_forbidden":
        owner: Any = _OWNERS.get(str(first["loc"][0]), Recipe)
        return unknown("recipe field", place if owner is Recipe else str(first["loc"][-1]), owner.model_fields)
    place = place.removesuffix(".literal['none']")
    return PassbandError(f"recipe field '{place}' cannot be {shortened(first['input'])}: {first['msg']}")
