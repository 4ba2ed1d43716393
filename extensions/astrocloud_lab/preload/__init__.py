"""Files that other programs load by their path, so that they work in any environment: each imports nothing of ours."""
