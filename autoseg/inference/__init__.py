"""An image and a network to probabilities or a label map: tiles, mirrored views, batches. Pure tensors, no files."""
