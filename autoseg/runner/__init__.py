"""Runs one job for each dataset, model and fold, and records their state.

Reads plans and splits; writes results/grid.json. Each job is its own `autoseg_train` process, so a crash does not affect other
jobs.
"""
