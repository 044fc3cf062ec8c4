"""Masks and references to scores.json and scores.csv. Must not depend on the source of the masks, nor define a metric."""
