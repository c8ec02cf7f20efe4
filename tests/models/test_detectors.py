"""Detectors by name: what they take, what they give, and what they refuse in one line."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from passband.attacks.given_loss import detection_loss
from passband.attacks.gradient_sign import FGSM
from passband.core.errors import NotApplicable, PassbandError
from passband.data.objects import Objects, Targets
from passband.models import torchvision_detectors
from passband.models.create import create
from passband.models.detector import BACKGROUND, Detector
from passband.models.detectors import create_detector, is_detector, names
from passband.models.weights_file import save_weights
from passband.tasks.detection import DETECTION, as_learned

SMALL = {
    "class_names": ("square", "disk"), "size": 64, "width": 32, "feedforward": 64, "decoder_layers": 1, "queries": 10,
    "denoising": 4,
}  # fmt: skip
NAME = "rtdetr:mobilenetv3_small_050"
SSD = "torchvision:ssdlite320_mobilenet_v3_large"


def objects(*boxes: tuple[float, ...], crowd: tuple[int, ...] = ()) -> Objects:
    table = torch.tensor(boxes).reshape(-1, 4)
    crowded = torch.zeros(len(table), dtype=torch.bool)
    crowded[list(crowd)] = True
    return Objects(table, torch.arange(len(table)) % 2, crowded, torch.full((len(table),), 100.0))


def drawn(name: str = NAME, **arguments: object) -> Detector:
    torch.manual_seed(0)
    return create_detector(name, **{**SMALL, **arguments})


@pytest.fixture(scope="module")
def small() -> Detector:
    return drawn()


@pytest.fixture(scope="module")
def ssd() -> Detector:
    torch.manual_seed(0)
    return create_detector(SSD, class_names=("square", "disk"))


@pytest.fixture(autouse=True)
def modes(request):
    yield
    for name in {"small", "ssd"} & set(request.fixturenames):
        request.getfixturevalue(name).train().requires_grad_(True)


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


def answers(detector: Detector, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.stack([torch.cat([one.boxes, one.scores[:, None]], 1) for one in detector.eval()(images)])


def test_the_names_of_detectors_are_no_classifiers() -> None:
    assert is_detector(NAME) and is_detector(SSD) and {"rtdetr:r18vd", SSD} <= set(names())
    assert not is_detector("resnet18") and not is_detector("torchvision:resnet18") and not is_detector("retinanet")
    with pytest.raises(NotApplicable, match="is a detector"):
        create(NAME)


def test_boxes_come_in_the_pixels_of_each_image(small) -> None:
    """Image by image, RT-DETR's own relative boxes, times the sides of the image as it was given."""
    tall, wide = rand(3, 96, 48), rand(3, 40, 80)
    small.eval()
    with torch.no_grad():
        together = small([tall, wide])
        for image, found in zip((tall, wide), together, strict=True):
            squashed = nn.functional.interpolate(image[None], (64, 64), mode="bilinear", antialias=True)
            raw = small.inner((squashed - small.mean) / small.std)
            scores, places = raw.logits.sigmoid().flatten().sort(descending=True)
            assert len(found) == 20  # ten queries, two classes
            torch.testing.assert_close(found.scores, scores, atol=1e-5, rtol=0)
            x, y, w, h = raw.pred_boxes[0, places // 2].T
            corners = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
            height, width = image.shape[-2:]
            expected = corners * torch.tensor([width, height, width, height])
            order = scores.diff().abs().min() > 1e-6
            assert not order or torch.allclose(found.boxes, expected, atol=1e-2)
            assert set(found.labels.tolist()) <= {0, 1}


def test_mean_and_std_of_the_backbone_are_applied_inside(small) -> None:
    assert small.spec.mean == (0.485, 0.456, 0.406) and "mean" not in small.state_dict()
    asked: list[Tensor] = []
    with small.inner.register_forward_pre_hook(lambda _, given: asked.append(given[0])):
        answers(small, torch.full((1, 3, 64, 64), 0.456))
    torch.testing.assert_close(asked[0][0, 1], torch.zeros(64, 64), atol=1e-6, rtol=0)
    torch.testing.assert_close(asked[0][0, 0, 0, 0], torch.tensor((0.456 - 0.485) / 0.229), atol=1e-5, rtol=0)


def test_a_batch_in_training_keeps_its_own_size_where_the_network_takes_it(small) -> None:
    asked: list[tuple[int, ...]] = []
    with small.inner.register_forward_pre_hook(lambda _, given: asked.append(tuple(given[0].shape[-2:])), prepend=True):
        for side in (96, 100):
            small.train()(rand(2, 3, side, side))
        small.eval()(rand(1, 3, 96, 96))
        small.train()([rand(3, 96, 96)])
    assert asked == [(96, 96), (64, 64), (64, 64), (64, 64)]


def test_the_losses_do_not_depend_on_the_pixels_that_boxes_are_counted_in(small) -> None:
    """In evaluation mode all is resized to one square, and boxes with it."""
    small.eval()
    image, twice = torch.full((1, 3, 64, 64), 0.3), torch.full((1, 3, 128, 128), 0.3)
    near = small(image, [objects((8, 8, 24, 40), (30, 30, 60, 60))])
    far = small([twice[0]], [objects((16, 16, 48, 80), (60, 60, 120, 120))])
    assert near.keys() == far.keys() and {"loss_vfl", "loss_bbox", "loss_giou"} <= near.keys()
    for name, loss in near.items():
        torch.testing.assert_close(far[name], loss, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("which", "training"), [("small", True), ("small", False), ("ssd", False)])
def test_images_without_objects_and_crowds(which, training, request) -> None:
    """A crowd is as if it were not there, for whoever asks; a batch of empty images still has a loss to lower."""
    detector: Detector = request.getfixturevalue(which)
    detector.train(training)
    images = rand(2, 3, 64, 64)
    first = torch.tensor([1, 1]) if which == "ssd" else torch.tensor([0, 0])

    def losses(*one: Objects) -> dict[str, Tensor]:
        torch.manual_seed(3)
        found = detector(
            images, Targets(tuple(Objects(o.boxes, o.labels + int(first[0]), o.crowd, o.areas) for o in one))
        )
        assert all(loss.ndim == 0 and bool(loss.isfinite()) for loss in found.values())
        return found

    box, crowd = (8.0, 8.0, 40.0, 40.0), (0.0, 0.0, 64.0, 64.0)
    plain, crowded = (
        losses(objects(box), objects()),
        losses(objects(box, crowd, crowd=(1,)), objects(crowd, crowd=(0,))),
    )
    assert plain.keys() == crowded.keys()
    for name, loss in plain.items():
        torch.testing.assert_close(crowded[name], loss, atol=1e-5, rtol=1e-5)
    empty = losses(objects(), objects())
    torch.stack(list(empty.values())).sum().backward()
    detector.zero_grad(set_to_none=True)


def test_an_attack_on_a_detector_leaves_crowds_out(small) -> None:
    images = rand(1, 3, 64, 64)
    attack = FGSM(eps=8 / 255)
    with_crowd = Targets((objects((8, 8, 40, 40), (0, 0, 64, 64), crowd=(1,)),))
    without = Targets((objects((8, 8, 40, 40)),))
    found = [attack(small, images, targets, loss=detection_loss) for targets in (with_crowd, without)]
    assert torch.equal(*found) and not torch.equal(found[0], images)


def test_as_many_targets_as_images(small) -> None:
    with pytest.raises(PassbandError, match="one set of objects an image; got 1 for 2"):
        small(rand(2, 3, 64, 64), [objects()])


def test_weights_that_are_nan_are_told(small) -> None:
    broken = drawn()
    with torch.no_grad():
        for parameter in broken.inner.model.decoder.class_embed.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(PassbandError, match="gives NaN"):
        broken.eval()(rand(1, 3, 64, 64))


def test_labels_stand_behind_torchvisions_background(ssd) -> None:
    assert (
        ssd.spec.class_names == (BACKGROUND, "square", "disk") and ssd.spec.classes == 3 and ssd.spec.size == (320, 320)
    )
    both = Targets((objects((0, 0, 9, 9), (0, 0, 9, 9), (1, 1, 2, 2), crowd=(2,)),))
    assert as_learned(both, ssd.spec.class_names)[0].labels.tolist() == [1, 2]
    assert as_learned(both, ("square", "disk"))[0].labels.tolist() == [0, 1]
    given: list[list[int]] = []
    with ssd.inner.register_forward_pre_hook(
        lambda _, asked: given.append([one["labels"].tolist() for one in asked[1]])
    ):
        DETECTION.learn(ssd.eval(), rand(1, 3, 64, 64), both)
    assert given == [[[1, 2]]]


def test_torchvisions_boxes_are_in_the_images_own_pixels(ssd) -> None:
    """Squares of 40 and 80 pixels of one color are resized to the same image."""
    ssd.inner.score_thresh = 0.0
    with torch.no_grad():
        small_one, large_one = ssd.eval()([torch.full((3, 40, 40), 0.3), torch.full((3, 80, 80), 0.3)])
    assert 30 < float(small_one.boxes.max()) <= 40 and 60 < float(large_one.boxes.max()) <= 80


def test_the_same_seed_draws_the_same_weights_and_all_of_them_learn(small) -> None:
    again = drawn()
    pairs = list(zip(small.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(one, other) and other.requires_grad for one, other in pairs)
    torch.manual_seed(1)
    assert not same(again, create_detector(NAME, **SMALL))
    norms = [module for module in again.inner.model.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and all(module.weight.requires_grad for module in norms)
    before = norms[0].running_mean.clone()
    again.train()(rand(2, 3, 64, 64))
    assert not torch.equal(norms[0].running_mean, before)


def test_the_first_boxes_are_the_anchors(small) -> None:
    """Heads of boxes begin at zero: every box is a square of 0.05, 0.1 or 0.2 of the image, at a cell's center."""
    with torch.no_grad():
        raw = small.eval().inner(small.normalized(rand(1, 3, 64, 64)))
    x, y, w, h = raw.pred_boxes[0].T
    torch.testing.assert_close(w, h)
    cells = torch.where(w < 0.07, 8, torch.where(w < 0.15, 4, 2))
    torch.testing.assert_close(w, 0.4 / cells, atol=1e-4, rtol=0)
    for center in (x, y):
        torch.testing.assert_close((center * cells - 0.5).round(), center * cells - 0.5, atol=1e-3, rtol=0)


@pytest.mark.parametrize("which", ["small", "ssd"])
def test_weights_in_a_file_come_back(which, request, tmp_path) -> None:
    detector: Detector = request.getfixturevalue(which)
    path = save_weights(detector, tmp_path / "weights.safetensors")
    torch.manual_seed(9)
    name, arguments = (SSD, {}) if which == "ssd" else (NAME, {**SMALL, "class_names": None})
    back = create_detector(name, weights=path, **arguments)
    assert same(detector, back) and back.spec == detector.spec
    with pytest.raises(PassbandError, match="is of another architecture") as caught:
        create_detector("rtdetr:resnet18", **SMALL, weights=path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_transformers_saved_comes_back(small, tmp_path) -> None:
    detector = small
    detector.inner.save_pretrained(tmp_path)
    back = create_detector(f"rtdetr:{tmp_path}", size=64)
    assert same(detector, back) and back.spec.class_names == ("square", "disk")
    assert (back.spec.mean, back.spec.std) == (detector.spec.mean, detector.spec.std)
    assert back.training and back.inner.training
    images = rand(1, 3, 64, 64)
    assert torch.equal(answers(detector, images), answers(back, images))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False, "image_mean": [0.5] * 3}))
    assert create_detector(f"rtdetr:{tmp_path}", size=64).spec.mean is None


def test_folders_that_hold_no_whole_rtdetr(tmp_path, monkeypatch) -> None:
    with pytest.raises(PassbandError, match="cannot be read"):
        create_detector(f"rtdetr:{tmp_path}", size=64)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "detr"}))
    with pytest.raises(PassbandError, match="holds no RT-DETR that transformers saved"):
        create_detector(f"rtdetr:{tmp_path}", size=64)
    with pytest.raises(PassbandError, match="brings its own sizes and classes; leave them out"):
        create_detector(f"rtdetr:{tmp_path}", class_names=("a",), size=64)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "rt_detr"}))
    with pytest.raises(PassbandError, match="holds no RT-DETR that transformers reads") as caught:
        create_detector(f"rtdetr:{tmp_path}", size=64)
    assert "\n" not in str(caught.value)
    # A folder that is called like a network is not meant.
    (tmp_path / "mobilenetv3_small_050").mkdir()
    monkeypatch.chdir(tmp_path)
    assert drawn().spec.classes == 2


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("retinanet", {}, "unknown detector 'retinanet'"),
        ("torchvision:retinanet_resnet50", {}, "did you mean 'torchvision:retinanet_resnet50_fpn'"),
        ("rtdetr:resnet81", {}, "unknown model 'resnet81': did you mean"),
        ("rtdetr:", {}, "unknown model ''"),
        ("rtdetr:hf-hub:timm/resnet18.a1_in1k", {}, "backbones that timm has itself"),
        ("rtdetr:vit_tiny_patch16_224", {}, "strides 8, 16 and 32; 'vit_tiny_patch16_224' has 16, 16, 16"),
        ("rtdetr:swin_tiny_patch4_window7_224", {}, "no feature maps of 64×64 pixels .*doesn't match model"),
        ("rtdetr:swin_tiny_patch4_window7_224", {"size": 224}, "gives other feature maps than it says"),
        ("rtdetr:resnet18", {"size": 100}, "a multiple of 32 pixels; got 100"),
        ("rtdetr:resnet18", {"size": 0}, "1 pixel or more; got 0"),
        ("rtdetr:resnet18", {"size": 16}, "a multiple of 32 pixels; got 16"),
        ("rtdetr:resnet18", {"neck": "r19"}, "neck cannot be 'r19'"),
        ("rtdetr:resnet18", {"width": 30}, "a width that is a multiple of 8; got 10, 64, 1, 4 and 30"),
        ("rtdetr:resnet18", {"decoder_layers": 0}, "1 or more queries, feedforward and decoder_layers"),
        ("rtdetr:resnet18", {"denoising": -1}, "denoising of 0 or more"),
        ("rtdetr:resnet18", {"widht": 32}, "did you mean 'width'"),
        (NAME, {"queries": 85}, "its 85 queries among 84 places of an image of 64×64"),
        ("rtdetr:resnet18", {"class_names": ()}, "one or more classes of different names; got"),
        ("rtdetr:resnet18", {"class_names": ("a", "a")}, "one or more classes of different names; got"),
        ("rtdetr:resnet18", {"pretrained": True}, "there are no pretrained weights of 'rtdetr:resnet18'"),
        ("rtdetr:r18vd", {"pretrained_backbone": True}, "no trained weights of 'r18vd' alone"),
        ("rtdetr:resnet18", {"pretrained": True, "weights": "x"}, "exclude each other"),
        ("rtdetr:resnet18", {"weights": "missing.safetensors"}, "no weights file missing.safetensors"),
    ],
)
def test_mistakes_are_one_line(name, arguments, words) -> None:
    with pytest.raises(PassbandError, match=words) as caught:
        create_detector(name, **{**SMALL, **arguments})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 64}, "resizes to 320×320 alone; got 64: give 320, or leave it out"),
        ({"num_classes": 3}, "leave num_classes out"),
        ({"socre_thresh": 0.1}, "did you mean 'score_thresh'"),
        ({"pretrained": True, "class_names": ("a",)}, "have classes of their own"),
    ],
)
def test_mistakes_with_torchvisions(arguments, words) -> None:
    with pytest.raises(PassbandError, match=words) as caught:
        create_detector(SSD, **arguments)
    assert "\n" not in str(caught.value)


def test_nothing_is_fetched_that_nobody_asked_for(monkeypatch) -> None:
    """Libraries would fetch the backbone's weights where they get none of the detector's."""

    def fetched(*_: object, **__: object) -> None:
        raise AssertionError("something is fetched")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetched)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetched)
    monkeypatch.setattr("huggingface_hub.file_download.http_get", fetched)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fetched)
    drawn()
    assert create_detector(SSD, size=320).spec.classes == 91


def test_detectors_that_learn_masks_say_so() -> None:
    """Boxes alone teach no mask."""
    detector = create_detector("torchvision:maskrcnn_resnet50_fpn", class_names=("a",), size=64)
    with pytest.raises(PassbandError, match="learns masks, which boxes do not give"):
        detector(rand(1, 3, 64, 64), [objects((0, 0, 9, 9))])


def test_torchvisions_own_file_is_read_with_the_epsilon_that_it_was_trained_with() -> None:
    def epsilon(name: str, file: str) -> float:
        inner = torch.nn.Sequential(torch.nn.BatchNorm2d(2))
        torchvision_detectors.settle(name, inner, file)
        return float(inner[0].eps)

    published = "retinanet_resnet50_fpn_coco-eeacb38b.pth"
    assert epsilon("torchvision:retinanet_resnet50_fpn", published) == 0
    assert epsilon("torchvision:retinanet_resnet50_fpn", "mine.pth") == 1e-5
    assert epsilon("torchvision:retinanet_resnet50_fpn_v2", published) == 1e-5
