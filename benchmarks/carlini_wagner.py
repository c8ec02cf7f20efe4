"""How much CW breaks, and how near, in torchattacks' way and in passband's, on the natural ResNet-20 of networks/.

The first 256 test images of Fashion-MNIST that the network gets right are attacked; an image is broken when the
attack's answer fools it.

    PASSBAND_DATA=DIR python -m benchmarks.carlini_wagner [--json FILE] [--quick] [--threads N]
"""

from __future__ import annotations

import json
import time
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.attacks import Subject
from benchmarks.side_by_side import options
from passband.attacks.carlini_wagner import CW
from passband.attacks.evaluate import robust_accuracy
from passband.core.environment import hardware, versions
from passband.core.store import write_atomic

COMPAT: Final = "torchattacks-3.5.1"


def rows(quick: bool) -> dict[str, CW]:
    """Return the attacks by what the table calls them."""
    steps = 5 if quick else 50
    return {
        "compat, 20 steps": CW(c=1, steps=5 if quick else 20, compat=COMPAT),
        "compat, 50 steps": CW(c=1, steps=steps, compat=COMPAT),
        "20 steps": CW(c=1, steps=5 if quick else 20),
        "50 steps": CW(c=1, steps=steps),
        "50 steps, search_steps=9": CW(c=1, steps=steps, search_steps=2 if quick else 9),
    }


def main() -> None:
    """Measure and print the table."""
    chosen = options(__doc__ or "")
    torch.set_num_threads(chosen.threads)
    subject = Subject.of(16 if chosen.quick else 256, "cpu", ("natural",))
    model, found = subject.networks["natural"], []
    table = Table("CW, c = 1", "broken", "of", "median L2 of the broken", "seconds")
    for name, attack in rows(chosen.quick).items():
        start = time.perf_counter()
        result = robust_accuracy(model, [(subject.images, subject.labels)], attack, verdict="last")
        seconds = time.perf_counter() - start
        broken = result.clean & ~result.correct[0]
        median = float(np.median(result.l2[0][broken])) if broken.any() else None
        row: dict[str, Any] = {
            "name": name, "attack": str(attack), "broken": int(broken.sum()), "of": int(result.clean.sum()),
            "l2": median, "seconds": seconds, "hardware": hardware(), "versions": versions(),
        }  # fmt: skip
        found.append(row)
        table.add_row(name, str(row["broken"]), str(row["of"]), f"{median or float('nan'):.3f}", f"{seconds:.1f}")
    Console().print(table)
    if chosen.json:
        write_atomic(chosen.json, json.dumps(found, indent=1).encode())


if __name__ == "__main__":
    main()
