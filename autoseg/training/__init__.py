"""Train any model: losses, optimiser, checkpoints, resuming, logging. Nothing here depends on the architecture.

Takes prepared arrays, a plan and splits; writes a results folder that is enough to predict. Must not read raw images.
"""
