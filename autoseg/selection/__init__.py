"""Finds the best way to train for a dataset in a number of hours: candidates, rungs of longer and longer trainings, five folds.

Reads a dataset's fingerprint and splits; writes results/<dataset>/selection/ and a results folder for each confirmed candidate.
Every training is a job of `autoseg.runner`.
"""
