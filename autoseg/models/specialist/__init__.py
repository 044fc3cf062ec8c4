"""Architectures made for medical images, one file each."""
