"""From raw images and a plan to arrays on disk. Prediction uses the same functions for new images.

Input: decoded images and a PreprocessingConfig. Output: stored arrays and normalised tensors. Does not depend on models.
"""
