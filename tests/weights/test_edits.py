"""Edits by name, as a user writes them."""

from __future__ import annotations

import pytest

from passband.core.errors import PassbandError
from passband.models.create import create
from passband.weights.edits import EDITS, choice, edited


@pytest.mark.parametrize(
    "text", ["smooth-first", "smooth-first=", "smooth-first=much", "smoothe=1", "low-pass-input=nan"]
)
def test_an_edit_is_written_with_its_strength(text: str) -> None:
    with pytest.raises(PassbandError, match=r"EDIT=STRENGTH was needed.*; got"):
        choice(text)
    assert choice("low-pass-input=1/2") == ("low-pass-input", 0.5)


def test_an_edited_model_lies_where_the_model_lay() -> None:
    model = create("separable_resnet", depth=1, width=4, classes=4, size=32, mean=(0.5,), std=(0.5,)).to("meta")
    changed = edited(model, "low-pass-input", 16)
    assert {tensor.device.type for tensor in (*changed.parameters(), *changed.buffers())} == {"meta"}


def test_each_edit_changes_a_copy_and_leaves_the_model() -> None:
    model = create("separable_resnet", depth=1, width=4, classes=4, size=32, mean=(0.5,), std=(0.5,)).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, edit in EDITS.items():
        strengths = edit.strengths(model)
        assert len(strengths) == 4
        changed = edited(model, name, strengths[-1])
        assert (
            not changed.training and len({tensor.device for tensor in (*changed.parameters(), *changed.buffers())}) == 1
        )
        same = {key.removeprefix("inner.1.").removeprefix("inner."): t for key, t in changed.state_dict().items()}
        weights_changed = any(not same[key.removeprefix("inner.")].equal(tensor) for key, tensor in before.items())
        assert weights_changed != edit.rebuilds
        assert all(model.state_dict()[key].equal(tensor) for key, tensor in before.items())
