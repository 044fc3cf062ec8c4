"""Somebody's data as a raw dataset in nnU-Net v2's layout.

Takes folders and archives; gives `raw/DatasetXXX_Name/`, whole or not at all. Nothing of autoseg's stages imports it.
"""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())
