"""Published weights: reading their files, which ones there are, the folder that holds them, and fetching them."""
