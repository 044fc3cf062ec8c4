"""Saliency maps of trained folds, as pictures and metrics. Does not train or score."""
