"""Grad-CAM: equal to CAM where the truth is known and to captum's, of the right layer, for one class or more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import passband.models  # noqa: F401
from passband.core.errors import NotApplicable, PassbandError
from passband.core.results import Gallery, Result, Table
from passband.core.spec import ImageSpec
from passband.data.dataset import Batches, ImageSet
from passband.models.wrap import Classifier
from passband.probes import PROBES
from passband.probes.cam_layer import layer_named, spatial
from passband.probes.pointing import energy_elsewhere, energy_inside, extent, on_grid
from passband.probes.saliency import concentration, enlarged, grad_cam, painted

saliency = PROBES["saliency"]


def images(count: int = 6, size: int = 16, batch: int = 4) -> Batches:
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return ImageSet("noise", pixels, np.arange(count) % 3, ("ant", "bee", "cat"), "0" * 64).batches(batch)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)
    )


def maps(found: tuple[Result, ...], name: str = "target") -> np.ndarray:
    return found[0].arrays[name]


def test_it_equals_cam_for_pooling_and_a_linear_head() -> None:
    model = network()
    pixels = torch.cat([x for x, _ in images()])
    features = model[:2](pixels).detach()
    weights = model[4].weight.detach()[torch.arange(6) % 3]
    cam = torch.einsum("bc,bchw->bhw", weights, features).relu() / features[0, 0].numel()
    assert cam.amax() > 0
    found = saliency(model, images())
    assert found[0].how["layer"] == "1"  # type: ignore[attr-defined]
    assert maps(found) == pytest.approx(cam.numpy(), abs=1e-7)
    assert np.array_equal(found[0].arrays["target.class"], np.arange(6) % 3)


@pytest.mark.parametrize("name", ["0", "1"])
def test_it_equals_captum(name: str) -> None:
    captum = pytest.importorskip("captum.attr", reason="captum is not installed (extra bench)")
    # Not in place: captum holds what a later layer would write over.
    model = nn.Sequential(*(nn.ReLU() if isinstance(one, nn.ReLU) else one for one in network()))
    pixels, targets = next(iter(images(4)))
    theirs = captum.LayerGradCam(model, model[int(name)]).attribute(pixels, targets, relu_attributions=True)
    ours = grad_cam(model, pixels, lambda logits: targets[None], layer=name).maps[0]
    assert float(ours.amax()) > 0 and torch.allclose(ours, theirs[:, 0], atol=1e-8)


def test_a_network_that_looks_at_one_quadrant_has_all_energy_there() -> None:
    class Quadrant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Conv2d(3, 4, 1)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(self.features(x)[:, :, :4, 4:].mean((2, 3)))
            return logits

    torch.manual_seed(0)
    pixels = torch.zeros(2, 3, 8, 8)
    pixels[:, :, :4, 4:] = torch.rand(2, 3, 4, 4)
    model = Quadrant()
    with torch.no_grad():
        model.features.bias.zero_()
    found = grad_cam(model, pixels, lambda logits: torch.tensor([[0, 0], [1, 1]]), layer="features").maps
    inside = torch.zeros(1, 8, 8)
    inside[:, :4, 4:] = 1
    filled = found.flatten(0, 1)[found.flatten(0, 1).amax((1, 2)) > 0]
    assert len(filled) and torch.allclose(energy_inside(filled, inside.expand_as(filled)), torch.ones(len(filled)))


def test_two_classes_at_once_are_two_calls_and_names_and_numbers_are_classes() -> None:
    both = saliency(network(), images(), classes=("ant", "2"), examples=0)
    for name in ("ant", "2"):
        assert np.array_equal(maps(both, name), maps(saliency(network(), images(), classes=(name,), examples=0), name))
    assert not np.array_equal(maps(both, "ant"), maps(both, "2"))
    predicted = saliency(network(), images(), classes=("predicted",))[0].arrays
    assert np.array_equal(predicted["predicted.class"], predicted["predicted.answer"])


def test_it_does_not_matter_how_the_images_come() -> None:
    first, second = (maps(saliency(network(), images(batch=batch))) for batch in (1, 6))
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    ("name", "arguments", "size", "layer", "grid"),
    [
        (
            "spartan_micro", {"widths": (8, 8, 8, 8), "depths": (1, 1, 1, 2), "ratios": (2, 2, 2, 2)}, 32,
            "stages.3.2", 2,
        ),
        ("resnet18", {"channels": (8, 8, 8, 8)}, 64, "layer4.1", 2),
        (
            "vit_tiny_patch16_224", {"img_size": 64, "embed_dim": 24, "depth": 2, "num_heads": 2}, 64,
            "blocks.1.norm1", 4,
        ),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 64, "window_size": 2, "embed_dim": 12, "depths": (1, 1), "num_heads": (1, 2)}, 64, "layers.1",
            8,
        ),
        # Its last stage has a single place.
        ("convnext_atto", {"dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1)}, 32, "stages.2", 2),
    ],
)  # fmt: skip
def test_the_layer_is_the_last_that_says_where(
    name: str, arguments: dict[str, Any], size: int, layer: str, grid: int
) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, **arguments)
    assert layer_named(model, None, torch.rand(1, 3, size, size)) == layer
    wrapped = Classifier(model, ImageSpec((size, size), None, None, "", 3))
    pixels = torch.rand(2, 3, size, size)
    for named in (layer, f"inner.{layer}"):
        found = grad_cam(wrapped, pixels, lambda logits: logits.argsort(1).T, layer=named)
        assert found.maps.shape == (3, 2, grid, grid) and float(found.maps.amax()) > 0


def test_maps_are_read_off_channels_last_and_off_tokens() -> None:
    plain = torch.rand(2, 5, 4, 6)
    size = (32, 48)
    assert torch.equal(spatial(plain, size), plain)
    assert torch.equal(spatial(plain.permute(0, 2, 3, 1), size), plain)
    tokens = torch.cat((torch.rand(2, 1, 5), plain.flatten(2).transpose(1, 2)), 1)
    assert torch.equal(spatial(tokens, size), plain)
    assert spatial(torch.rand(2, 5, 1, 1), size) is None and spatial(torch.rand(2, 7, 5), (32, 32), None) is not None
    assert spatial(torch.rand(2, 24), size) is None and spatial((plain, plain), size) is None


def test_the_model_is_left_as_it_was_found() -> None:
    model = network().train()
    model[4].weight.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    saliency(model, images())
    with pytest.raises(PassbandError):
        saliency(model, images(), classes=("ante",))
    assert all(one.training and not one._forward_hooks for one in model.modules())
    assert [one.requires_grad for one in model.parameters()] == [True, True, False, True]
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight)) and model[0].bias.grad is None
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "inner.1x"}, "unknown layer 'inner.1x'"),
        ({"layer": "4"}, "layer 4 gives no map .* name another one"),
        ({"classes": ("bea",)}, "unknown class 'bea': did you mean 'bee'"),
        ({"classes": ("3",)}, "unknown class '3'"),
        ({"classes": ()}, "classes names one or more"),
        ({"examples": -1}, "examples is 0 or more"),
    ],
)
def test_what_it_cannot_do_is_refused_in_a_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PassbandError, match=message):
        saliency(network(), images(), **options)


def test_it_does_not_apply_where_nothing_says_where() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    with pytest.raises(NotApplicable, match="no layer of Sequential gives one"):
        saliency(flat, images())
    with pytest.raises(NotApplicable, match="has no logits"):
        saliency(nn.Sequential(nn.Conv2d(3, 3, 1)), images())
    norm = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False))
    with pytest.raises(NotApplicable, match="normalizes by each"):
        saliency(norm, images())


def test_the_gallery_shows_each_image_beside_its_maps() -> None:
    table, gallery = saliency(network(), images(), examples=2)
    assert isinstance(table, Table) and isinstance(gallery, Gallery)
    assert len(gallery.pictures) == 2 and gallery.pictures[0].image.shape == (160, 3 * 160, 3)
    pixels = next(iter(images()))[0][0].permute(1, 2, 0).mul(255).round().byte().numpy()
    assert np.array_equal(gallery.pictures[0].image[::10, :160:10], pixels)
    large = enlarged(torch.from_numpy(maps((table,))), (16, 16))
    assert np.array_equal(gallery.pictures[0].image[::10, 160:320:10], painted(pixels, large[0].numpy()))
    filled = concentration(large)[large.amax((1, 2)) > 0]
    assert table.rows[0][1] == pytest.approx(float(filled.mean())) and table.rows[0][3] == 6


def test_how_well_a_map_agrees_with_a_box() -> None:
    inside = torch.zeros(2, 4, 4)
    inside[0, :2, :2] = inside[1, 2:, 2:] = 1
    empty, all_in = torch.zeros(4, 4), inside[0] * 3
    assert energy_inside(torch.stack([empty, all_in]), inside).tolist() == [0.25, 0]
    assert energy_inside(inside, inside).tolist() == [1, 1]
    assert energy_elsewhere(inside, inside, torch.tensor([0, 1])).tolist() == [0, 0]
    assert energy_elsewhere(torch.stack([all_in, all_in]), inside, torch.tensor([0, 1])).tolist() == [1, 0]
    point = torch.zeros(4, 4)
    point[0, 0] = 2
    assert extent(torch.stack([point, empty]), inside).tolist() == [0.25, 0]
    assert extent(inside, inside).tolist() == [1, 1]
    assert on_grid(inside, 2).tolist() == [[[1, 0], [0, 0]], [[0, 0], [0, 1]]]
    assert on_grid(inside, 8) is inside
