"""References held against out-of-fold predictions: where they are probably wrong, and why.

Reads trained folds' held-out predictions; writes audit.json, suggestions and a gallery. Never touches the raw dataset.
"""
