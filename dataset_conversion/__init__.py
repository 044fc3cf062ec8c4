"""Converts data of any origin into a raw dataset in nnU-Net v2's layout.

Reads folders and archives; writes `raw/DatasetXXX_Name/`, all of it or nothing. No other package of autoseg needs it.
"""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())
