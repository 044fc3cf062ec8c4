"""Masks and references to scores.json and scores.csv. Must not know how the masks were made, nor define a metric."""
