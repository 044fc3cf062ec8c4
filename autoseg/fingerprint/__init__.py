"""Measures a raw dataset: sizes, values, classes, duplicates, quality problems.

Input: a raw dataset. Output: `fingerprint.json`. Decides nothing and changes no image.
"""

from autoseg.fingerprint.measure import content_hash, fingerprint_dataset
from autoseg.fingerprint.validation import check_dataset

__all__ = ["check_dataset", "content_hash", "fingerprint_dataset"]
