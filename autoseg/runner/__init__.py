"""The grid of datasets, models and folds: which runs there are, where they run, what came of them.

Takes plans and splits; leaves what each run leaves, and results/grid.json. Trains nothing itself: a run is a process of its
own (`autoseg_train`), so that one that dies takes no other with it.
"""
