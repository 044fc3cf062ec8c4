"""The stages of `python -m benchmarks`: each one's command of autoseg, of nnU-Net v2, and the network's bare passes."""
