"""Masks and references to scores.json and its tables. Must not depend on the source of the masks, nor define a metric."""
