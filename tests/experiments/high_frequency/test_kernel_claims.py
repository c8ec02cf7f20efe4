"""What the experiments about first-layer kernels train, edit and read off their rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from passband.core.compute import Compute
from passband.core.recipe import Recipe
from passband.core.results import Gallery
from passband.core.scale import Scale
from passband.experiments.high_frequency import kernel_smoothing, kernels
from passband.experiments.high_frequency.settings import MOVED, training
from passband.frequency.spectrum import smoothness
from passband.probes.kernels import kernels as probe
from passband.sweeps.lab import Lab
from passband.weights.neighbors import mix_neighbors

PLACES = {"clean": "clean"} | {
    f"{attack} {eps:g}": attack for attack in kernel_smoothing.ATTACKS for eps in kernel_smoothing.EPS
}


def printed(data: str) -> list[dict]:
    """The paper's table as rows, with the means over ε that claims look at."""
    rows = []
    for case, numbers in kernel_smoothing.EXPERIMENT.reported.items():
        name, _, of = case.rpartition(", ")
        if of == data:
            means = {
                f"{attack} mean": np.mean([numbers[f"{attack} {eps:g}"] for eps in kernel_smoothing.EPS])
                for attack in kernel_smoothing.ATTACKS
            }
            line = name.partition(",")[0]
            rows.append({"case": name, "data": of, "seed": 0, "line": line, "protocol": "fixed", **numbers, **means})
    return rows


def margins(rows: list[dict]) -> dict[str, float]:
    found = {claim.name: claim.margin(rows) for claim in kernel_smoothing.EXPERIMENT.claims}
    return {name: margin for name, margin in found.items() if margin is not None}


def test_the_paper_s_own_tables_bear_out_all_claims_but_those_that_the_docstring_names() -> None:
    cifar, imagenet = margins(printed("cifar10")), margins(printed("restricted-imagenet"))
    contradicted = ["above adversarial, FGSM", "natural, large ε above small, PGD"]
    assert [name for name, margin in cifar.items() if margin <= 0] == contradicted
    assert cifar["above adversarial, FGSM"] == pytest.approx(12.7 - 13.7)
    assert cifar["above adversarial, PGD"] == pytest.approx(7.8 - 3.8)
    assert cifar["natural improves, PGD"] == pytest.approx((8.6 + 7.8 + 7.8 - 0.3 - 0.2 - 0.2) / 3)
    assert cifar["clean plunges, natural"] == pytest.approx(85.6 - (81.5 + 74.3 + 67.4 + 63.1) / 4)
    assert cifar["adversarial, large ε above small, FGSM"] == pytest.approx((18.6 - 13.7) - (35.6 - 43.5))
    assert [name for name, margin in imagenet.items() if margin < 1e-9] == [
        "natural, large ε above small, FGSM", "adversarial does not improve at small ε, FGSM",
        "natural, large ε above small, PGD", "adversarial does not improve at small ε, PGD",
        "adversarial, large ε above small, PGD",
    ]  # fmt: skip


def test_only_where_ε_is_larger_means_not_at_the_smallest_which_table_4_contradicts() -> None:
    cifar, imagenet = margins(printed("cifar10")), margins(printed("restricted-imagenet"))
    name = "adversarial does not improve at small ε, FGSM"
    assert cifar[name] == pytest.approx(43.5 - 35.6) and imagenet[name] == pytest.approx(12.2 - 24.1)
    # The weaker reading holds there all the same.
    assert imagenet["adversarial, large ε above small, FGSM"] == pytest.approx((16.4 - 1.2) - (24.1 - 12.2))
    name = "natural, large ε above small, FGSM"
    assert cifar[name] == pytest.approx((12.7 - 4.4) - (17.1 - 10.7)) and imagenet[name] == pytest.approx(0, abs=1e-9)


def test_claims_about_what_was_not_measured_say_nothing() -> None:
    natural = [row for row in printed("cifar10") if row["line"] == "natural"]
    found = margins(natural)
    assert not any("adversarial" in name for name in found)
    assert not any("normalized" in name or "smallest" in name for name in found)
    assert margins([{"case": "natural, ρ 0", "note": "not measured"}]) == {}


def test_controls_compare_with_the_model_as_it_is() -> None:
    rows = printed("cifar10")
    rows.append({"case": "natural, ρ 1, normalized", "seed": 0, "FGSM mean": 10.0, "PGD mean": 0.0})
    assert kernel_smoothing.change(rows, "natural", "FGSM mean", keep_gain=False) == pytest.approx(10 - 22 / 3)
    rows += [{"case": f"natural, ρ {rho}, smallest", "seed": 0, "PGD mean": 3.0 + rho} for rho in (0, 1)]
    assert kernel_smoothing.change(rows, "natural", "PGD mean", protocol="smallest") == pytest.approx(1.0)


def test_small_scale_asks_for_the_trainings_that_it_shares_with_others() -> None:
    small = kernel_smoothing.cases(Scale.SMALL)
    assert {(case["data"], case["trained"]) for case in small} == {
        ("fashion-mnist", "natural"), ("fashion-mnist", "adversarial"), ("cifar10-jpeg", "natural"),
    }  # fmt: skip
    names = [case["case"] for case in small if case["data"] == "fashion-mnist"]
    assert len(names) == len(set(names)) == 2 * (5 + 1) + 2
    assert len([case for case in kernel_smoothing.cases(Scale.FULL) if case["seed"] == 0]) == 2 * 2 * (5 + 4 + 5)
    asked = {kernels.recipe(case, Scale.SMALL).digest("") for case in (*small, *kernels.cases(Scale.SMALL))}
    moved = training(Scale.SMALL, data="fashion-mnist", seed=0, augment=list(MOVED))
    assert len(asked) == 6 and moved.digest("") in asked
    assert kernels.MOVED_ONLY not in kernels.trainings(Scale.SMALL, "cifar10-jpeg")
    for trained in kernels.TRAININGS:
        assert isinstance(kernels.recipe({"trained": trained, "data": "mnist", "seed": 0}, Scale.FULL), Recipe)


def test_kernels_of_gray_images_are_sums_over_channels_and_dead_ones_keep_their_place() -> None:
    layer = nn.Conv2d(3, 3, 3)
    with torch.no_grad():
        layer.weight[1] = 0
    gallery = kernels.in_gray(probe(layer, None)[0])
    assert isinstance(gallery, Gallery) and len(gallery.pictures) == 3
    weight = torch.from_numpy(gallery.arrays["weight"])
    torch.testing.assert_close(weight, layer.weight.detach().sum(1, keepdim=True))
    found = kernels.per_kernel(smoothness, weight)
    alive = smoothness(weight[[0, 2], 0]).double().numpy()
    assert found.mean() == pytest.approx(alive.mean())
    # Three places for two numbers: each lies three halves as far from their mean.
    np.testing.assert_allclose(found, alive.mean() + 1.5 * np.array([alive[0] - alive[1], 0, alive[1] - alive[0]]) / 2)
    with torch.no_grad():
        layer.weight[0, 0] = 0
    living = layer.weight.detach()[[0, 2]]
    by_channel = kernels.per_kernel(smoothness, living)
    assert by_channel[0] == pytest.approx(float(smoothness(living[0, 1:]).mean()))


def test_an_edited_model_is_asked_on_its_run_s_images_and_the_run_stays(tmp_path) -> None:
    lab = Lab(Scale.SMOKE, "passband test", runs=tmp_path, compute=Compute(device="cpu"), limit=20)
    tiny = {"name": "hfc_resnet32", "depth": 1, "width": 4}
    run = lab.train(Recipe.of({"model": tiny, "data": {"name": "photos", "part": 32}, "epochs": 1, "batch": 32}))
    plain, same = lab.subject(run), lab.edited(run, lambda model: mix_neighbors(model, 0.0))
    mixed = lab.edited(run, lambda model: mix_neighbors(model, 1.0))
    assert plain.digest == same.digest != mixed.digest and mixed.name.endswith("ρ 1")
    asked = {name: lab.ask(one, run, "gradients") for name, one in (("plain", plain), ("mixed", mixed))}
    assert asked["plain"]["gradients.zero"].how["weights"] == plain.digest
    assert asked["mixed"]["gradients.zero"].how["weights"] == mixed.digest
    assert asked["mixed"]["gradients.confidence"].value > asked["plain"]["gradients.confidence"].value
    assert len(lab.ask(mixed, run, "gradients", limit=7)["gradients.confidence"].arrays["confidence"]) == 7
    assert lab.subject(run).digest == plain.digest
