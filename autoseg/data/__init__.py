"""Training batches: order of cases and windows, augmentation, prefetching. Every random draw is reproducible.

Input: array store, plan, seed. Output: tensors of stored values. Knows nothing about networks or losses.
"""
