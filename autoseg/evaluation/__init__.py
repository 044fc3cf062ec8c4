"""Masks and references to scores."""
