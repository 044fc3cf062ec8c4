"""One thin argparse module per command. No logic, and no import of torch before it is needed."""
