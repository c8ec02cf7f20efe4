"""What every test runs under: shapes checked against their annotations, and one thread."""

import torch
from jaxtyping import install_import_hook

# Before any test module imports these rooms: what is imported already is not checked.
install_import_hook(
    [f"passband.{room}" for room in ("frequency", "attacks", "models", "tasks", "probes")], "typechecker.check"
)

# The networks are tiny, and two threads that wait for each other are slower.
torch.set_num_threads(1)
