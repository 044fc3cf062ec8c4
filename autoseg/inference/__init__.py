"""A trained network over prepared arrays: batches, tiles, mirrored views; gives probabilities and label maps.

Takes stored values (H, W, C). Must not read files or know where weights lie.
"""
