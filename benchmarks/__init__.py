"""Benchmarks of speed and memory. Each prints a table; none is a test."""
