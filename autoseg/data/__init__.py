"""Batches for training: which case and window comes when, augmentation, prefetching. Every draw can be repeated.

Takes an array store, a plan and a seed; gives tensors of stored values. Must not know networks or losses.
"""
