"""autoseg: 2D medical image segmentation that configures itself and compares architectures fairly."""

__version__ = "0.1.0"
