"""One thread for all tests: the networks are tiny, and two threads that wait for each other are slower."""

import torch

torch.set_num_threads(1)
