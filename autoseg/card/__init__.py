"""Model cards: what a network was made from, what it can do, what its user must state."""
