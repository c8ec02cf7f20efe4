"""A batch in pieces: the step is that of the whole batch's mean loss, and what cannot be cut says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

import passband.models  # noqa: F401  (registers them)
from passband.attacks.gradient_sign import FGSM
from passband.core.compute import Compute
from passband.core.errors import PassbandError
from passband.core.recipe import Part, Recipe
from passband.core.spec import ImageSpec
from passband.data.dataset import ImageSet
from passband.models.wrap import Classifier
from passband.tasks import CLASSIFICATION
from passband.train import build, fit, steps
from passband.train.optim import decayed
from passband.train.pieces import cut
from passband.train.ranks import Ranks
from passband.train.run import train

Data = tuple[Tensor, Tensor]


def model() -> Classifier:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(64, 5)).double()
    return Classifier(inner, ImageSpec((6, 6), (0.0,) * 3, (1.0,) * 3, "test", 5))


@pytest.fixture
def data() -> Data:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(11, 3, 6, 6, generator=generator, dtype=torch.float64), torch.arange(11) % 5


def learned(step: Any, data: Data, pieces: int) -> tuple[dict[str, Tensor], tuple[float, float]]:
    """Return the gradients of one step, and the sums of loss and score that the log counts."""
    network = model()
    plan: Any = fit.Plan(1, step, CLASSIFICATION.scores, *[None] * 7, pieces=pieces, apart=pieces > 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    # What an earlier step left must not be added to.
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    sums = fit._learn(Ranks(Fabric(accelerator="cpu", devices=1)), network, optimizer, plan, *data, 7, 11)
    return {name: one.grad for name, one in network.named_parameters() if one.grad is not None}, sums


@pytest.mark.parametrize(
    "step", [steps.plain, steps.adversarial(FGSM(eps=0.05)), steps.trades(FGSM(eps=0.05), {}).step]
)
def test_the_step_and_the_log_are_those_of_the_whole_batch(step: Any, data: Data) -> None:
    whole, (loss, score) = learned(step, data, 1)
    pieces, also = learned(step, data, 4)
    assert len(whole) == len(pieces) == 4
    torch.testing.assert_close(pieces, whole, rtol=1e-9, atol=1e-12)
    assert also == (pytest.approx(loss, rel=1e-12), score)


def test_each_piece_draws_by_a_number_of_its_own(data: Data) -> None:
    seen: list[tuple[int, int]] = []

    def step(network: nn.Module, images: Tensor, targets: Tensor, number: int) -> tuple[Tensor, Tensor]:
        seen.append((len(images), number))
        return steps.plain(network, images, targets, number)

    learned(step, data, 4)
    assert seen == [(3, 28), (3, 29), (3, 30), (2, 31)]


@pytest.mark.parametrize(("count", "sizes"), [(8, [2, 2, 2, 2]), (7, [3, 2, 2]), (3, [3]), (2, [2]), (1, [1])])
def test_no_piece_holds_a_single_image_that_has_others(count: int, sizes: list[int]) -> None:
    images, targets = torch.arange(count).view(-1, 1, 1, 1), torch.arange(count)
    found = list(cut(images, targets, 4))
    assert [len(one) for one, _ in found] == sizes
    assert torch.equal(torch.cat([one for _, one in found]), targets)
    assert torch.equal(torch.cat([one for one, _ in found]), images)


def test_what_cannot_be_cut_is_one_line() -> None:
    for call, words in (
        (lambda: steps.make_scheme(Part(name="free"), None, {}, pieces=2), "scheme free keeps .*; leave pieces null"),
        (lambda: Recipe.of({"pieces": 3, "batch": 5}), "3 pieces of a batch of 5 do not"),
        (lambda: Recipe.of({"pieces": 1}), "'pieces' cannot be 1"),
    ):
        with pytest.raises(PassbandError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_training_of_the_papers_parts_goes_through_in_pieces(tmp_path, monkeypatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    twenty = ImageSet("noise", images, np.arange(20) % 15, tuple(map(str, range(15))), "noise")
    monkeypatch.setattr(build.catalog, "load", lambda *_, **__: twenty)
    recipe = Recipe.of(
        {
            "model": {"name": "spartan_micro", "widths": [8] * 4, "depths": [1] * 4, "ratios": [1] * 4},
            "data": {"name": "photos"},
            "augment": [{"name": "resized-crop"}, {"name": "flip"}, {"name": "erasing", "fill": "mean"}],
            "scheme": {"name": "mixup-or-cutmix"},
            "optimizer": {"name": "adamw", "weight_decay": 0.03, "decay": "kernels"},
            "schedule": {"name": "cosine", "warmup": 0.5, "start": 0.04, "final": 0.01, "prefix": False},
            "epochs": 1,
            "batch": 8,
            "pieces": 2,
        }
    )
    seen = []
    plain = steps.functional.cross_entropy
    monkeypatch.setattr(steps.functional, "cross_entropy", lambda *given: seen.append(given[1].shape) or plain(*given))
    run = train(recipe, compute=Compute(device="cpu"), runs=tmp_path)
    assert [tuple(shape) for shape in seen] == [(4, 15)] * 4 + [(2, 15)] * 2
    (line,) = (run.folder / "log.csv").read_text().splitlines()[1:]
    assert line.split(",")[1] == "3" and 1 < float(line.split(",")[3]) < 6


def names(groups: Any, network: nn.Module) -> tuple[set[str], set[str]]:
    """Return the names of what is not decayed, and of what is."""
    known = {id(one): name for name, one in network.named_parameters()}
    bare, kernels = groups
    assert bare["weight_decay"] == 0 and "weight_decay" not in kernels
    sets = tuple({known[id(one)] for one in group["params"]} for group in (bare, kernels))
    assert sets[0] | sets[1] == set(known.values()) and not sets[0] & sets[1]
    return sets[0], sets[1]


def test_of_spartan_kernels_scales_and_complex_weights_are_decayed() -> None:
    network = timm.create_model("spartan_micro", widths=(8,) * 4, depths=(1,) * 4)
    bare, kernels = names(decayed(Part(name="adamw", decay="kernels"), network), network)
    assert {name.rsplit(".", 1)[-1] for name in bare} == {"weight", "bias", "gamma"}
    assert all(".norm." in name or "_norm." in name for name in bare if name.endswith("weight"))
    assert {name.rsplit(".", 1)[-1] for name in kernels} == {"weight", "spatial_scale", "channel_scale", "rotation"}
    assert not any("norm" in name for name in kernels) and sum(name.endswith("gamma") for name in bare) == 4


def test_of_a_vit_what_timm_decays_is_decayed() -> None:
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, embed_dim=12, num_heads=3)
    bare, kernels = names(decayed(Part(name="adamw", decay="kernels"), network), network)
    assert {"cls_token", "pos_embed"} < bare and "patch_embed.proj.weight" in kernels
    assert kernels == {name for name, one in network.named_parameters() if one.ndim > 1} - {"cls_token", "pos_embed"}


def test_decay_has_two_words_and_none_beside_quantize() -> None:
    network = nn.Linear(2, 2)
    assert len(list(decayed(Part(name="adamw", decay="all"), network))) == 2
    with pytest.raises(PassbandError, match="decay is all or kernels; got 'kernel'"):
        decayed(Part(name="adamw", decay="kernel"), network)
    recipe = Recipe.of({"quantize": {"bits": 4}, "optimizer": {"name": "adamw", "decay": "kernels"}})
    with pytest.raises(
        PassbandError, match="decay=kernels and quantize each group the parameters; leave one"
    ) as caught:
        build.learned(recipe, model())
    assert "\n" not in str(caught.value)
