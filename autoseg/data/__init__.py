"""Arrays on disk to augmented batches. Must not know networks."""
