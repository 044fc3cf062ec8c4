"""One trainer for every model: losses, optimiser, checkpoints, resuming, the log. It never asks which model it has.

Takes prepared arrays, a plan and splits; leaves a results folder that explains itself. Must not read raw images.
"""
