"""Arrays to numbers. Takes label maps and spacing; gives overlap and distance metrics. Must not read files."""
