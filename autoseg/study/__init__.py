"""Published studies: definitions in YAML, checks before the start, tables with the published numbers, deviations."""
