"""What the batch sizes, the augmentations and the architectures read off their rows, and what they train."""

from __future__ import annotations

import pytest

from passband.core.scale import Scale
from passband.experiments.adversarial_focus import architectures, attacked, augmentation, batch_size, settings
from passband.experiments.adversarial_focus.settings import training
from passband.experiments.margins import rank_correlation

ALL = (batch_size, augmentation, architectures)


class Asked(Exception):
    """Ends a case where its training begins."""


def recipes(module, scale: Scale) -> dict[str, object]:
    found = {}

    class Lab:
        def __init__(self) -> None:
            self.scale = scale

        def train(self, recipe, keep_epochs):
            found[case["case"]] = recipe
            raise Asked

    for case in module.cases(scale):
        if case["seed"] == 0:
            with pytest.raises(Asked):
                module.measure(case, Lab())
    return found


def papers(module) -> list[dict]:
    """Return the paper's own numbers as rows, in the order of its table."""
    return [
        {"case": case["case"], "seed": 0} | module.EXPERIMENT.reported.get(f"{case['case']}, cifar10", {})
        for case in module.cases(Scale.FULL)
        if case["seed"] == 0
    ]


def margins(module, rows: list[dict]) -> dict[str, float | None]:
    return {claim.name: claim.margin(rows) for claim in module.EXPERIMENT.claims}


@pytest.mark.parametrize("module", ALL, ids=lambda module: module.__name__.rpartition(".")[2])
def test_rows_that_were_not_measured_give_no_margin(module) -> None:
    rows = [{"case": case["case"], "seed": 0, "note": "not measured"} for case in module.cases(Scale.FULL)]
    found = margins(module, rows)
    assert len(found) == len(module.EXPERIMENT.claims) and set(found.values()) == {None}
    columns = {column.name for column in module.EXPERIMENT.columns}
    assert all(set(row) <= columns for row in module.EXPERIMENT.reported.values())


def test_the_papers_batch_sizes_hold_around_128() -> None:
    rows = papers(batch_size)
    sizes = {f"batch {size}": size for size in batch_size.BATCHES[Scale.FULL]}
    rows = [row | {"batch": sizes.get(row["case"], 128)} for row in rows]
    found = margins(batch_size, rows)
    assert found.pop("more robust with as few steps") is None
    assert found == {
        "smaller batch, more robust": pytest.approx(44.31 - 42.89),
        "too small, less accurate": pytest.approx(76.89 - 74.92),
        "too small, less robust": pytest.approx(44.31 - 41.71),
        "around 128 most accurate": pytest.approx(76.89 - 76.38),
        "around 128 most robust": pytest.approx(44.31 - 43.71),
    }
    rows[-1] |= {"PGD-20": 40.0}
    assert rows[-1]["case"] == "batch 128, as few steps"
    assert margins(batch_size, rows)["more robust with as few steps"] == pytest.approx(40.0 - 42.89)
    # At small scale the middle of 512, 64 and 32 is the batch of the other tables.
    few = [row for row in rows[:-1] if row["batch"] in batch_size.BATCHES[Scale.SMALL]]
    assert margins(batch_size, few)["smaller batch, more robust"] == pytest.approx(43.71 - 42.89)
    assert margins(batch_size, few[:2])["smaller batch, more robust"] is None


def test_the_papers_augmentations() -> None:
    rows = papers(augmentation)
    found = margins(augmentation, rows)
    assert found["C-mixup above A-mixup under PGD-20"] == pytest.approx(40.89 - 39.87)
    assert found["C-cutmix above A-cutmix under CW-20"] == pytest.approx(48.35 - 44.14)
    # Where its own table contradicts its sentence.
    assert found["C-cutout below A-cutout, clean"] == pytest.approx(69.72 - 70.10)
    assert found["cutout poor, A-"] == pytest.approx(39.87 - 27.61 - (40.61 - 39.87))
    assert found["cutout poor, C-"] == pytest.approx(40.72 - 36.49 - (40.89 - 40.72))
    assert found["none improves robustness"] == pytest.approx(42.13 - 40.89)
    assert found["C-mixup above BCE under CW-20"] is None
    rows[-1] |= {"CW-20": 45.0}
    assert margins(augmentation, rows)["C-mixup above BCE under CW-20"] == pytest.approx(46.29 - 45)
    assert margins(augmentation, rows[:-2])["none improves robustness"] is None


def test_the_papers_architectures() -> None:
    rows = papers(architectures)
    found = margins(architectures, rows)
    assert found.pop("robustness grows with capacity") is None
    assert [found[f"{family} more robust"] for family in architectures.RIVALS] == pytest.approx([1.30, 2.29, 1.33])
    less = [found[f"{family}, clean improves less"] for family in architectures.RIVALS]
    assert less == pytest.approx([1.30 - 6.30, 2.29 + 0.57, 1.33 - 9.18])
    assert found["Wide ResNet more robust under CW-20"] == pytest.approx(26.58 - 39.78)
    for row, count in zip(rows, (1, 2, 3, 4), strict=True):
        row["parameters"] = count
    # 43.12, 44.42, 45.41, 44.45: ranks 1, 2, 4, 3.
    assert rank_correlation(rows, "parameters", "PGD-20", 4) == pytest.approx(0.8)


def test_what_is_trained_is_shared_with_the_other_tables() -> None:
    base = training(Scale.SMALL, data="fashion-mnist", seed=0)
    sizes, mixed, networks = (recipes(module, Scale.SMALL) for module in ALL)
    assert sizes["batch 64"] == base
    assert mixed["None"] == networks["ResNet"]
    assert sizes["batch 512"] == training(Scale.SMALL, data="fashion-mnist", seed=0, batch=512)
    assert networks["ResNet"] == training(Scale.SMALL, data="fashion-mnist", seed=0, epochs=3)
    assert sizes["batch 64, as few steps"].epochs == 1
    full = recipes(batch_size, Scale.FULL)
    few = full["batch 128, as few steps"]
    assert (
        full["batch 512"] == training(Scale.FULL, data="cifar10", seed=0) == recipes(augmentation, Scale.FULL)["None"]
    )
    assert few.epochs * 512 == full["batch 512"].epochs * few.batch
    control, biggest = sizes["batch 64, as few steps"], sizes["batch 512"]
    assert control.epochs * control.data.part / 64 == biggest.epochs * 12  # 6,000 images in batches of 512
    assert len({recipe.text() for found in (sizes, mixed, networks) for recipe in found.values()}) == 4 + 8 + 4 - 1


def test_networks_are_called_by_their_names() -> None:
    names = [attacked.called(part["model"]) for part in settings.architectures(Scale.FULL).values()]
    assert names == [
        "ResNet-20, width 16, hardtanh", "MobileNetV2, 1 of the channels",
        "EfficientNet-B0, 1 of the channels, 1 of the blocks", "WRN-34-10",
    ]  # fmt: skip
