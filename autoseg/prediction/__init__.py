"""Images and trained folds to masks on disk."""
