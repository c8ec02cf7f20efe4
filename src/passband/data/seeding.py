"""Sources of randomness that depend on a key alone."""

from __future__ import annotations

import numpy as np
import torch


def generator(*key: int) -> torch.Generator:
    """Return a generator whose numbers depend on the key alone, such as (seed, epoch, step), each 0 or more."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) % 2**63)
