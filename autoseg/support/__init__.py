"""Errors, workspace paths, atomic files, logging, parallel work. Knows nothing of images."""
