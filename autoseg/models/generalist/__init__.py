"""Architectures made for photographs, one file each."""
