"""What a deployment would do, for reading."""

from collections.abc import Iterator

from scripts.morph.configuration import DEFAULTS, FIXED, Configuration, Target
from scripts.morph.masking import MASK, shown
from scripts.morph.steps import Step


def account(target: Target) -> Iterator[str]:
    """Where the deployment is."""
    yield f"deployment   {target.name}, stage {target.stage}"
    yield f"API          {target.address}, key {MASK} ({target.variable})"


def lines(
    configuration: Configuration, steps: tuple[Step, ...], health_seconds: float
) -> Iterator[str]:
    """The plan, without secrets."""
    yield from account(configuration.target)
    yield f"base         {configuration.base} ({configuration.base.variable})"
    for number, step in enumerate(steps, start=1):
        count = len(step.files)
        files = f", {count} {'file' if count == 1 else 'files'}" if count else ""
        yield (
            f"step {number}       {step.name}{files}: reuse or build the snapshot with "
            f"digest {step.digest[:16]}"
        )
    yield "start        an instance from the last snapshot"
    yield f"expose       port {configuration.port}, on the Internet"
    yield "environment  encrypted for the instance, kept there in a file of mode 0600"
    for variable, value in sorted(configuration.environment.items()):
        given = " (set by the deployment)" if _is_ours(variable, value) else ""
        yield f"             {variable}={shown(variable, value)}{given}"
    for variable, content in sorted(configuration.files.items()):
        yield f"             {variable}: a copy of the file, {len(content)} bytes"
    yield f"health       GET /readyz until it answers 200, at most {health_seconds:g} s"
    yield "replace      older instances are drained and stopped after that"
    yield "on failure   the new instance is stopped, older ones keep serving"
    for warning in configuration.warnings:
        yield f"warning      {warning}"


def _is_ours(variable: str, value: str) -> bool:
    return {**DEFAULTS, **FIXED}.get(variable) == value
