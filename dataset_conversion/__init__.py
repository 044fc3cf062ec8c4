"""Public datasets and general layouts into the raw layout. Stands beside the street; only the command line imports it."""
