"""Read prediction files, and compute metrics, statistics and comparisons from them."""
