"""Tunes garbage collection for batches."""

import gc

# Batches are thousands of objects without cycles, which reference counting frees. With
# the default thresholds, the search for cycles takes a quarter of the CPU time.
THRESHOLDS = (10_000, 50, 100)


def collect_seldom() -> None:
    """Exclude all objects loaded so far, and raise the thresholds. Call once at
    start."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
