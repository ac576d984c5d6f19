"""How Python collects garbage while batches pass through."""

import gc

# Batches are thousands of objects without cycles: counting frees them. Looking for
# cycles among them, at Python's own pace, costs a quarter of ingest's time.
THRESHOLDS = (10_000, 50, 100)


def collect_seldom() -> None:
    """Once, at the start: what is loaded by then is never looked through again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
