"""Speed and memory, compared with others or with the bare lower bound. Each prints a table; none is a test."""
