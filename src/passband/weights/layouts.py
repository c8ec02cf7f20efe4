"""Which rows of a fused query-key-value layer are which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from passband.core.errors import PassbandError

Blocks = list[tuple[str, int]]
"""Consecutive rows and what they are: ``q``, ``k``, ``v`` (or ``m``, the fused first layer of an MLP)."""


def _heads_first(m: Any) -> Blocks:
    """Rows ordered by head, each with a query and a key of one width and a value of another."""
    return [("q", m.key_dim), ("k", m.key_dim), ("v", m.val_dim)] * int(m.num_heads)


def _parallel(m: Any) -> Blocks:
    names = ("m", "q", "k", "v")
    return list(zip(names, (int(n) for n in m.in_split), strict=True))


def _maybe_heads_first(m: Any) -> Blocks:
    width = int(m.dim_head)
    if m.head_first:
        return [("q", width), ("k", width), ("v", width)] * int(m.num_heads)
    return [("q", width * m.num_heads), ("k", width * m.num_heads), ("v", width * m.num_heads)]


def _thirds_of(width: Callable[[Any], int]) -> Callable[[Any, int], Blocks]:
    """Rows in groups of query, key, value of equal ``width``, as often as they fit."""
    return lambda m, rows: [("q", width(m)), ("k", width(m)), ("v", width(m))] * (rows // (3 * width(m)))


SPECIAL: dict[str, Callable[[Any, int], Blocks]] = {
    "levit.Attention": lambda m, _: _heads_first(m),
    "tiny_vit.Attention": lambda m, _: _heads_first(m),
    "efficientformer.Attention": lambda m, _: _heads_first(m),
    "levit.AttentionDownsample": lambda m, _: [("k", m.key_dim), ("v", m.val_dim)] * m.num_heads,
    "CascadedGroupAttention": lambda m, _: [("q", m.key_dim), ("k", m.key_dim), ("v", m.val_dim)],
    "SHSA": lambda m, _: [("q", m.qk_dim), ("k", m.qk_dim), ("v", m.pdim)],
    "LinearSelfAttention": lambda m, _: [("q", 1), ("k", m.embed_dim), ("v", m.embed_dim)],
    "BottleneckAttn": lambda m, _: [("q", m.dim_out_qk), ("k", m.dim_out_qk), ("v", m.dim_out_v)],
    "HaloAttn": lambda m, _: [("k", m.dim_head_qk), ("v", m.dim_head_v)] * m.num_heads,
    "LambdaLayer": lambda m, _: [("q", m.num_heads * m.dim_qk), ("k", m.dim_qk), ("v", m.dim_v)],
    "maxxvit.Attention2d": lambda m, _: _maybe_heads_first(m),
    "maxxvit.AttentionCl": lambda m, _: _maybe_heads_first(m),
    "attention2d.Attention2d": lambda m, _: _maybe_heads_first(m),
    "LiteMLA": _thirds_of(lambda m: int(m.dim)),
    "lowformer.ConvAttention": _thirds_of(lambda m: int(m.head_dim)),
    "cpubone.ConvAttention": _thirds_of(lambda m: int(m.head_dim)),
    "ParallelScalingBlock": lambda m, _: _parallel(m),
    "DiffParallelScalingBlock": lambda m, _: _parallel(m),
    # The query comes from outside: what timm still calls qkv holds key and value.
    "WindowAttentionGlobal": lambda m, rows: _equal("kv" if m.use_global else "qkv", rows),
}


def _equal(names: str, rows: int) -> Blocks:
    return [(name, rows // len(names)) for name in names]


def query_key_rows(attention: nn.Module, labels: tuple[str, ...], child: str, rows: int, name: str) -> Tensor:
    """Tell the rows of a fused layer that hold queries and keys.

    Args:
        attention: The attention module.
        labels: Names under which its class may stand in the table.
        child: Name of the fused layer within it.
        rows: Rows of the fused weight.
        name: Name of the parameter, for the error.

    Returns:
        One boolean per row: True for query and key, False for the value.

    Raises:
        PassbandError: when the parts do not add up to the rows.
    """
    special = next((SPECIAL[label] for label in labels if label in SPECIAL), None)
    blocks = special(attention, rows) if special else _equal("kv" if child == "kv" else "qkv", rows)
    if sum(size for _, size in blocks) != rows:
        raise PassbandError(
            f"'{name}' has {rows} rows, which are not the query, key and value expected ({blocks[:3]}); "
            f"say what it is with roles={{'{name}': 'spatial'}} or another role"
        )
    return torch.cat([torch.full((size,), part in "qk", device="cpu") for part, size in blocks])
