"""Unit tests of the metrics that workers share."""
