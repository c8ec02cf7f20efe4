"""What the process holds from which trials are forked: torch, the rooms of a training and of a probe, the photographs.

Importing it takes seconds, once; each trial then starts in milliseconds.
"""

import torch

import passband.cli.app
import passband.experiments.reproduce
import passband.sweeps.probing  # noqa: F401
from passband.data.photos import photos

torch.set_num_threads(1)
photos("train")
photos("test")
