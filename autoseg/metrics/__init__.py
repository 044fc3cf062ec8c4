"""Overlap and distance metrics of label maps. Takes arrays and spacing; must not read files."""
