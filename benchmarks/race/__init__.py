"""autoseg against nnU-Net v2 and a plain recipe: same images, folds and seconds of training, one neutral scorer."""
