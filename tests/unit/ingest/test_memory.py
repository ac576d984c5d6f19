"""Garbage collection while batches pass through."""

import gc

from services.ingest.memory import THRESHOLDS, collect_seldom


def test_what_is_loaded_at_the_start_is_never_looked_through_again() -> None:
    before = gc.get_threshold()
    try:
        collect_seldom()
        assert gc.get_threshold() == THRESHOLDS
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
