"""Trained folds and images to masks: `Predictor` for arrays, `predict_files` for files, `predict_fold` for held-out cases.

Writes masks, pictures and prediction.json. Must not score anything.
"""
