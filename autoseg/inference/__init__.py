"""Applies a trained network to preprocessed arrays: batches, tiles, mirrored views, probabilities, label maps.

Input: stored values (H, W, C). Knows nothing about files or weights.
"""
