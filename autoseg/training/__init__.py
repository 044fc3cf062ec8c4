"""Batches and a network to weights. Writes checkpoints, metrics and the run's record."""
