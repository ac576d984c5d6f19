"""Words of refusals that depend on what was asked. What all errors have in common is in
`test_problem.py`."""

from services.gateway import errors


def test_a_form_is_named_as_the_reason() -> None:
    said = [str(errors.model_not_named(["gpt-*"], form)) for form in (True, False)]
    assert said[0].startswith("The proxy cannot read the model of a form, ")
    assert said[1].startswith("The request names no model, ")


def test_what_is_absent_counts_as_something() -> None:
    assert "none, which counts as 'medium'" in str(
        errors.effort_not_allowed(None, "low")
    )
    assert "states no limit" in str(errors.output_not_limited(None, 9))
    assert "has 10" in str(errors.output_not_limited(10, 9))


def test_long_lists_are_cut() -> None:
    said = str(errors.tier_not_allowed("x", [f"tier-{n}" for n in range(9)]))
    assert "tier-4, ..." in said
    assert "tier-5" not in said
