"""Random histories of routing, which the function library and its Python reference run
side by side: test_policy_agrees.py."""

import pytest

# A failure shows what each side said, as in a test module.
pytest.register_assert_rewrite(
    *(f"{__name__}.{module}" for module in ("both", "queues", "services"))
)
