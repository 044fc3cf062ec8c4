"""Networks on encoders that were pretrained on far more than ImageNet (self-supervised, or to segment anything)."""
