"""autoseg: 2D medical image segmentation that configures itself and compares architectures fairly."""

import logging

__version__ = "0.1.0"

# A library says nothing until its user configures logging, or calls `autoseg.support.log.configure_logging`.
logging.getLogger(__name__).addHandler(logging.NullHandler())
