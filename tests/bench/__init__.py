"""What the figures in docs/performance.md come from; run by ``make bench``."""
