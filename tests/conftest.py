"""Settings of all tests."""

import torch

# the tests' problems are small: more threads only wait for each other, most of all beside other processes
torch.set_num_threads(1)
