"""COCO's classes among those of other sets, and its older names."""

from __future__ import annotations

from functools import cache

OLDER = {
    "motorbike": "motorcycle", "aeroplane": "airplane", "sofa": "couch", "pottedplant": "potted plant",
    "diningtable": "dining table", "tvmonitor": "tv",
}  # fmt: skip
"""Names that some detectors have from PASCAL VOC, with COCO's."""

_IMAGENET: dict[str, tuple[int, ...]] = {
    "airplane": (404, 895),
    "banana": (954,),
    "bear": tuple(range(294, 298)),
    "bench": (703,),
    "bicycle": (444, 671),
    "bird": (*range(7, 25), *range(80, 101), *range(127, 147)),
    "boat": (472, 484, 554, 576, 625, 814, 871, 914),
    "broccoli": (937,),
    "bus": (654, 779, 874),
    "car": (436, 468, 511, 609, 627, 656, 661, 751, 817),
    "cat": tuple(range(281, 286)),
    "cell phone": (487,),
    "dog": tuple(range(151, 269)),
    "elephant": (101, 385, 386),
    "horse": (339,),
    "hot dog": (934,),
    "laptop": (620, 681),
    "microwave": (651,),
    "motorcycle": (665, 670),
    "orange": (950,),
    "pizza": (963,),
    "refrigerator": (760,),
    "teddy bear": (850,),
    "toilet": (861,),
    "traffic light": (920,),
    "train": (466, 547, 820),
    "truck": (555, 569, 675, 717, 864, 867),
    "umbrella": (879,),
    "vase": (883,),
    "zebra": (340,),
}
"""Indices, among ImageNet's 1,000 classes, of those that lie in one of COCO's classes, for COCO's that have some."""

CIFAR10 = {
    "airplane": "airplane", "bird": "bird", "boat": "ship", "car": "automobile", "cat": "cat", "dog": "dog",
    "horse": "horse", "truck": "truck",
}  # fmt: skip
"""COCO's classes that CIFAR-10 has too, with its names; deer and frog are not annotated in COCO."""


@cache
def imagenet() -> dict[str, tuple[str, ...]]:
    """Return the WordNet ids, the names of ImageNet's class folders, that some of COCO's classes take in."""
    from timm.data import ImageNetInfo

    ids = ImageNetInfo().label_names()
    return {kind: tuple(ids[index] for index in indices) for kind, indices in _IMAGENET.items()}
