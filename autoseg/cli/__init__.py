"""One thin argparse module per command. Must not hold logic, and must not import torch before it is needed."""
