"""What a process that trains has imported by its end, for the server that starts such processes."""

import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401
import torch._dynamo  # noqa: F401 (optimisers do so when they are made)

import tests.training.tiny  # noqa: F401
