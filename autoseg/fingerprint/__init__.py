"""Looks at a raw dataset once and says what is in it: sizes, values, classes, duplicates, oddities.

Takes a raw dataset; gives `fingerprint.json`. Must not decide anything, nor change an image.
"""

from autoseg.fingerprint.measure import content_hash, fingerprint_dataset
from autoseg.fingerprint.validation import check_dataset

__all__ = ["check_dataset", "content_hash", "fingerprint_dataset"]
