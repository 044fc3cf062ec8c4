"""Frozen dataclasses that stages exchange as JSON. Imports nothing of autoseg.

Takes plain values; returns checked objects and JSON with a schema version. Must not read files or import stages.
"""
