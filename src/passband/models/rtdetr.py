"""RT-DETR of transformers, on its own backbones or on any of timm's with feature maps of strides 8, 16 and 32."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors import SafetensorError
from timm.models import is_model
from torch import Tensor, nn
from torchvision.ops import box_convert
from torchvision.transforms.v2 import functional as transforms

from passband.core.errors import PassbandError
from passband.core.spec import ImageSpec
from passband.models.detector import Annotated, Detector, Host, Losses
from passband.models.downloads import explain_download
from passband.models.found import Found, Images
from passband.models.origin import LIBRARY_REFUSALS
from passband.models.rtdetr_backbones import (
    AS_THEY_ARE,
    OWN,
    STRIDES,
    Pixels,
    described,
    library,
    load_trained,
    pixels_of,
    refusing,
)
from passband.models.torchvision_detectors import coco_names

PREFIX = "rtdetr:"
PRIOR = 0.01
"""Every class's score before anything is learned."""
KEPT = 300
"""Detections kept for an image, at most."""

Neck = Literal["r18", "r34", "r50"]


@dataclass(frozen=True)
class Sizes:
    """Hold what tells RT-DETR's encoders and decoders apart.

    Attributes:
        expansion: Width of the encoder's convolutional blocks, as a share of its width.
        layers: Decoder layers.
    """

    expansion: float
    layers: int


NECKS: dict[str, Sizes] = {"r18": Sizes(0.5, 3), "r34": Sizes(0.5, 4), "r50": Sizes(1.0, 6)}
"""Encoder and decoder as they come with each of RT-DETR's own backbones."""


def from_transformers(
    backbone: str, *, class_names: tuple[str, ...] | None, size: int | None, pretrained: bool, arguments: dict[str, Any]
) -> Detector:
    """Make an RT-DETR, or read one that transformers saved.

    Args:
        backbone: ``"r18vd"``, ``"r34vd"``, ``"r50vd"``, a timm name, or a folder written by ``save_pretrained``.
        class_names: Of the objects; COCO's 80, or the saved detector's, when None.
        size: Side of the square that images are resized to, a multiple of 32; 640 when None.
        pretrained: Whether to ask for trained weights, which only a folder has.
        arguments: Of :func:`build`.

    Raises:
        PassbandError: when transformers is not there, for an unknown backbone, or arguments that do not fit.
    """
    side = 640 if size is None else size
    if side % 32 or side < 32:
        raise PassbandError(f"rtdetr resizes to a multiple of 32 pixels; got {side}")
    folder = saved_folder(backbone)
    if folder is not None:
        if arguments or class_names:
            raise PassbandError(f"{folder} is a saved detector, which brings its own sizes and classes; leave them out")
        return _read(folder, side)
    if pretrained:
        raise PassbandError(
            f"there are no pretrained weights of '{PREFIX}{backbone}'; take it without (--no-pretrained), or give "
            "--weights FILE, or a folder that transformers saved, as rtdetr:FOLDER"
        )
    return build(backbone, coco_names() if class_names is None else class_names, side, **arguments)


def saved_folder(backbone: str) -> Path | None:
    """Return the folder that is meant, or None where a network is, though a folder be called like it."""
    if not backbone or backbone in OWN or is_model(backbone):
        return None
    folder = Path(backbone).expanduser()
    return folder if folder.is_dir() else None


def build(
    backbone: str,
    class_names: tuple[str, ...],
    side: int,
    *,
    neck: Neck | None = None,
    queries: int = 300,
    denoising: int = 100,
    width: int = 256,
    feedforward: int = 1024,
    decoder_layers: int | None = None,
    pretrained_backbone: bool = False,
) -> Detector:
    """Make an RT-DETR with new weights, drawn from torch's global generator.

    **Source**: spartan, section IV-B; sizes as in RT-DETR's released code.
    **Differs**: from transformers, which draws the scale of each batch norm and each weight of encoder and decoder
    from N(0, 0.01): layers begin as in RT-DETR's released code, most as torch begins them, scales at 1, the first boxes
    at the anchors, the first scores at 0.01. Attention's projections are drawn one by one, where that code draws query,
    key and value as one. A backbone's batch norms learn; transformers freezes them unless told.

    Args:
        backbone: ``"r18vd"``, ``"r34vd"``, ``"r50vd"`` or a timm name.
        class_names: Of the objects.
        side: Of the square that images are resized to.
        neck: Encoder and decoder as they come with that backbone of RT-DETR's; None is the backbone's own, and
            ``"r50"`` for timm's, which is what matches SpaRTAN's Table III.
        queries: Boxes that the decoder follows.
        denoising: Noisy copies of the objects in training, about so many an image; 0 is none.
        width: Of encoder and decoder, a multiple of 8.
        feedforward: Width of their feed-forward layers.
        decoder_layers: In place of the neck's.
        pretrained_backbone: Whether the backbone begins with timm's trained weights.

    Raises:
        PassbandError: for an unknown backbone or neck, or sizes that do not fit.
    """
    chosen = neck or ("r50" if backbone not in OWN else backbone.removesuffix("vd"))
    if chosen not in NECKS:
        raise PassbandError(f"a neck is {', '.join(NECKS)}; got '{chosen}'")
    layers = NECKS[chosen].layers if decoder_layers is None else decoder_layers
    if min(queries, feedforward, layers) < 1 or denoising < 0 or width < 8 or width % 8:
        raise PassbandError(
            "rtdetr takes 1 or more queries, feedforward and decoder_layers, denoising of 0 or more and a width that "
            f"is a multiple of 8; got {queries}, {feedforward}, {layers}, {denoising} and {width}"
        )
    sizes, transformers = NECKS[chosen], library()
    backbone_config, pixels = described(backbone, side, pretrained_backbone)
    config = transformers.RTDetrConfig(
        backbone_config=backbone_config, freeze_backbone_batch_norms=False, hidden_expansion=sizes.expansion,
        decoder_layers=layers, num_queries=queries, num_denoising=denoising,
        d_model=width, encoder_hidden_dim=width, decoder_in_channels=[width] * 3, encoder_ffn_dim=feedforward,
        decoder_ffn_dim=feedforward, initializer_bias_prior_prob=PRIOR, id2label=dict(enumerate(class_names)),
        label2id={name: index for index, name in enumerate(class_names)},
    )  # fmt: skip
    with explain_download(f"{PREFIX}{backbone}"), refusing(backbone):
        inner = transformers.RTDetrForObjectDetection(config)
        if pretrained_backbone:
            load_trained(inner, backbone)
    _draw(inner)
    return _wrapped(inner, side, pixels)


def _check_places(queries: int, height: int, width: int) -> None:
    places = sum((height // stride) * (width // stride) for stride in STRIDES)
    if queries > places:
        raise PassbandError(
            f"rtdetr chooses its {queries} queries among {places} places of an image of {height}×{width}; "
            "take fewer queries or a larger size"
        )


def _draw(inner: Any) -> None:
    """Draw encoder and decoder as RT-DETR's released code does: torch's own beginnings, but for what it names."""
    from transformers.models.rt_detr import modeling_rt_detr as parts

    backbone = {id(module) for module in inner.model.backbone.modules()}
    fresh = [module for module in inner.modules() if id(module) not in backbone]
    for parameter in inner.parameters():
        parameter._is_hf_initialized = False  # or transformers' own functions below would leave it
    for module in fresh:
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.LayerNorm):
            module.reset_parameters()
    named = (parts.RTDetrForObjectDetection, parts.RTDetrModel, parts.RTDetrMultiscaleDeformableAttention)
    with torch.no_grad():
        for module in fresh:
            if isinstance(module, named):
                inner._init_weights(module)
        model = inner.model
        last = model.enc_bbox_head.layers[-1]
        last.weight.zero_()
        last.bias.zero_()
        for layer in (model.enc_output[0], *model.decoder.query_pos_head.layers):
            nn.init.xavier_uniform_(layer.weight)
        for head in (model.enc_score_head, *model.decoder.class_embed):
            nn.init.kaiming_uniform_(head.weight, a=5**0.5)  # torch's own for a linear layer; biases stay as drawn
        if hasattr(model, "denoising_class_embed"):
            model.denoising_class_embed.reset_parameters()


def _read(folder: Path, side: int) -> Detector:
    told = _json(folder / "config.json")
    if told.get("model_type") != "rt_detr":
        raise PassbandError(f"{folder} holds no RT-DETR that transformers saved (model type {told.get('model_type')})")
    try:
        inner, loaded = library().RTDetrForObjectDetection.from_pretrained(
            folder, local_files_only=True, output_loading_info=True
        )
    except (OSError, RuntimeError, SafetensorError, *LIBRARY_REFUSALS) as error:
        line = (str(error).splitlines() or [""])[0]
        raise PassbandError(f"{folder} holds no RT-DETR that transformers reads ({line})") from error
    if loaded["missing_keys"]:
        first = min(loaded["missing_keys"])
        raise PassbandError(f"{folder} lacks {len(loaded['missing_keys'])} of its detector's tensors, first '{first}'")
    return _wrapped(inner.train(), side, _kept_pixels(folder, told))


def _kept_pixels(folder: Path, told: Mapping[str, Any]) -> Pixels:
    """Read off a saved image processor whether it normalizes; RT-DETR's own do not.

    Where none was saved, the backbone is taken to see what it sees in a detector that :func:`build` makes.
    """
    path = folder / "preprocessor_config.json"
    if path.is_file():
        found = _json(path)
        if found.get("do_normalize"):
            return tuple(found["image_mean"]), tuple(found["image_std"]), f"{folder.name}'s {path.name}"
        return None, None, f"{folder.name}'s {path.name}: none"
    backbone = (told.get("backbone_config") or {}).get("backbone")
    if backbone is None:
        return AS_THEY_ARE
    return pixels_of(backbone)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise PassbandError(f"{path} cannot be read ({error}); give a folder that transformers saved") from None
    return found if isinstance(found, dict) else {}


def _wrapped(inner: Any, side: int, pixels: Pixels) -> Detector:
    names = tuple(name for _, name in sorted(inner.config.id2label.items()))
    _check_places(inner.config.num_queries, side, side)
    spec = ImageSpec((side, side), *pixels, len(names), fit="timm", crop_mode="squash", class_names=names)
    return Detector(inner, spec, RTDETR)


def _find(detector: Detector, images: Images) -> list[Found]:
    outputs = detector.inner(detector.normalized(_together(detector, images)))
    scores, labels, boxes = _best(outputs.logits, outputs.pred_boxes)
    found = []
    for index, image in enumerate(images):
        corners = box_convert(boxes[index], "cxcywh", "xyxy") * _extent(image)
        found.append(Found(corners, scores[index], labels[index]))
    return found


def _best(logits: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest scores over all queries and classes, with their classes and boxes."""
    classes = logits.shape[-1]
    scores, places = logits.sigmoid().flatten(1).topk(min(KEPT, logits[0].numel()), dim=1)
    return scores, places % classes, boxes.gather(1, (places // classes)[..., None].expand(-1, -1, 4))


def _lose(detector: Detector, images: Images, targets: Sequence[Annotated]) -> Losses:
    pixels = detector.normalized(_together(detector, images))
    labels = [
        {"class_labels": one.labels, "boxes": box_convert(one.boxes, "xyxy", "cxcywh") / _extent(image)}
        for image, one in zip(images, targets, strict=True)
    ]
    outputs = detector.inner(pixels, labels=labels)
    weighted: Losses = outputs.loss_dict
    return weighted


def _extent(image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    return torch.tensor([width, height, width, height], dtype=torch.float32, device=image.device)


def _together(detector: Detector, images: Images) -> Tensor:
    """Return images as one batch: in training a batch at its own size, which may change, else at the detector's.

    Sizes that are no multiples of 32 have feature maps that do not fit on each other.
    """
    if isinstance(images, Tensor):
        height, width = images.shape[-2:]
        if detector.training and not (height % 32 or width % 32):
            _check_places(cast(Any, detector.inner).config.num_queries, height, width)
            return images
        if (height, width) == detector.spec.size:
            return images
    size = list(detector.spec.size)
    sized = [transforms.resize(one, size, transforms.InterpolationMode.BILINEAR, antialias=True) for one in images]
    return torch.stack(sized).contiguous(memory_format=torch.channels_last)


RTDETR = Host(_find, _lose)
"""Images are resized to a square, their aspect not kept; the losses are weighted, so that their sum is the loss."""
