"""Predict masks with trained folds: `Predictor` for arrays, `predict_files` for files, `predict_fold` for validation cases.

Writes masks, overlays and prediction.json. Must not score anything.
"""
