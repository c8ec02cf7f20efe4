"""What is frozen stays bit for bit, what learns moves, and the network computes what it did."""

import copy

import pytest
import timm
import torch
from torch import nn

import passband.models.separable_resnet  # noqa: F401 - registers the model
from passband.core.errors import PassbandError
from passband.weights.learn import bake, learn, learned_parameters
from passband.weights.roles import roles


def vit() -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=12, num_heads=3, depth=2, num_classes=4
    )


def levit() -> nn.Module:
    return timm.create_model("levit_128s", img_size=64, num_classes=4)


def ours() -> nn.Module:
    return timm.create_model("separable_resnet", depth=1, width=4, multiplier=2, num_classes=4)


def convnext() -> nn.Module:
    return timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), num_classes=4)


BUILDS = {
    "vit": (vit, 16, "freeze"),
    "levit": (levit, 64, "learn"),
    "ours": (ours, 32, "freeze"),
    "convnext": (convnext, 32, "learn"),
}


def step(model: nn.Module) -> None:
    """One step of SGD with weight decay over all that an optimizer could be given."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            # Zero-initialized layers have no gradient below them: a random one moves them all.
            parameter.grad = torch.randn_like(parameter)
    optimizer.step()


@pytest.mark.parametrize("what", ["channels", "spatial"])
@pytest.mark.parametrize("build", BUILDS)
def test_frozen_parameters_stay_and_the_others_move(build: str, what: str) -> None:
    torch.manual_seed(0)
    make, side, both = BUILDS[build]
    model, images = make().eval(), torch.randn(2, 3, side, side)
    names, before, logits = roles(model), copy.deepcopy(model.state_dict()), model(images)

    report = learn(model, what, both=both)
    assert torch.equal(model(images), logits)
    assert report.learned == sum(p.numel() for _, p in learned_parameters(model))
    assert report.learned + report.frozen == sum(p.numel() for p in make().parameters())

    step(model)
    after = bake(model).state_dict()
    make().load_state_dict(after)
    learning = {"channels": "channel", "spatial": "spatial"}[what], "neither", "both" if both == "learn" else ""
    for name, role in names.items():
        plain, fused, _ = name.partition("[")
        if not fused:
            assert torch.equal(before[plain], after[plain]) != (role in learning), name
    if build == "vit":
        for leaf in ("weight", "bias"):
            name = f"blocks.1.attn.qkv.{leaf}"
            moved = (before[name] != after[name]).reshape(36, -1).any(1)
            assert moved[:24].all() == (not moved[24:].any()) == (what == "spatial")
            assert moved[24:].all() == (not moved[:24].any()) == (what == "channels")


def test_rows_by_head_are_told_apart() -> None:
    model = levit()
    attention = model.stages[0].blocks[0].attn
    learn(model, "channels", both="learn")
    split = attention.qkv.linear.parametrizations.weight[0]
    rows = torch.zeros(attention.num_heads, 2 * attention.key_dim + attention.val_dim, dtype=torch.bool)
    rows[:, 2 * attention.key_dim :] = True
    assert torch.equal(split.learned_rows, rows.flatten().nonzero().flatten())


def test_frozen_values_only_reach_the_output_through_the_value_rows() -> None:
    """Zeroing what ``channels`` learns of a fused layer zeroes attention: those rows are the values."""
    model = vit().eval()
    learn(model, "channels")
    attention = model.blocks[0].attn
    with torch.no_grad():
        for leaf in ("weight", "bias"):
            attention.qkv.parametrizations[leaf].original.zero_()
        attention.proj.bias.zero_()
        assert attention(torch.randn(2, 5, 12)).abs().max() == 0


def test_a_copy_and_a_checkpoint_carry_the_frozen_rows() -> None:
    model, other = vit(), vit()
    for each in (model, other):
        learn(each, "spatial")
    other.load_state_dict(copy.deepcopy(model).state_dict())
    left, right = bake(model).state_dict(), bake(other).state_dict()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_learning_everything_again_frees_everything() -> None:
    model = vit()
    total = sum(p.numel() for p in model.parameters())
    learn(model, "spatial")
    report = learn(model, "all")
    assert (report.learned, report.frozen) == (total, 0)
    assert all(p.requires_grad for p in model.parameters())
    assert "all" in str(report) and f"{total:,}" in str(report)


def test_what_the_maker_froze_stays_frozen() -> None:
    model = vit()
    model.pos_embed.requires_grad_(False)
    learn(model, "spatial")
    learn(model, "all")
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["pos_embed"]


def test_whole_attention_learns_with_spatial() -> None:
    model = vit()
    learn(model, "spatial", attention="whole")
    learned = {name for name, _ in learned_parameters(model)}
    assert {name for name, _ in model.named_parameters() if ".attn." in name} <= learned
    assert not any(".mlp." in name for name in learned)


def test_a_dense_resnet_is_refused_with_its_share() -> None:
    with torch.device("meta"):
        model = timm.create_model("resnet18")
    with pytest.raises(PassbandError, match=r"94% of ResNet's .*separate.*both='learn'"):
        learn(model, "channels")
    assert learn(model, "channels", both="learn").frozen == 0


def test_rules_that_match_nothing_are_errors() -> None:
    with pytest.raises(PassbandError, match="'spatial' has nothing to learn in Sequential"):
        learn(nn.Sequential(nn.Conv2d(3, 8, 1)), "spatial")
    with pytest.raises(PassbandError, match="matches none"):
        learn(ours(), "all", roles={"nothing.*": "channel"})
    with pytest.raises(PassbandError, match="did you mean 'channels'"):
        learn(ours(), "channel")  # type: ignore[arg-type]


def test_everything_learns_without_any_role() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    assert (learn(model, "all").learned, len(learned_parameters(model))) == (20, 2)
    model.requires_grad_(False)
    with pytest.raises(PassbandError, match="no parameter of the model learns"):
        learned_parameters(model)
