"""Files of the folder that `autoseg_export --runtime` writes. `run.py` imports nothing of autoseg and no torch."""
