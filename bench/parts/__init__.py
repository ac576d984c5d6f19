"""Building blocks of the benchmarks."""
