"""The probes by name: each takes a model and batches and gives results."""

from __future__ import annotations

from collections.abc import Callable

from passband.core.registry import Registry
from passband.core.results import Result

Probe = Callable[..., tuple[Result, ...]]
"""``probe(model, batches, *, options) -> results``; leaves the model as it found it."""

DETECTORS = frozenset({"detection"})
"""The probes that take a detector and scenes; all others take a classifier and images."""

PROBES: Registry[Probe] = Registry("probe")

TIMED: set[str] = set()
"""Probes that take times: their answers belong to the hardware and its threads too."""
