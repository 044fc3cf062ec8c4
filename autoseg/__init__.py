"""autoseg: 2D medical image segmentation that configures itself and compares architectures fairly."""

import logging

__version__ = "0.1.0"

# Silent until the program configures logging, for example with `autoseg.support.log.configure_logging`.
logging.getLogger(__name__).addHandler(logging.NullHandler())
