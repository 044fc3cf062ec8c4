"""Comparison of references with out-of-fold predictions: which references are probably wrong, and why.

Reads the held-out predictions of trained folds; writes audit.json, suggestions and a gallery. Never changes the raw dataset.
"""
