"""Where a trained network looks. Takes trained folds and cases; gives heat maps and shares. Must not train or score."""
