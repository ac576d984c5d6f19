"""The command line of `scripts/deploy_service.py`."""

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

from libs.cli.checks.finding import Refused
from libs.cli.environment import examined
from scripts.morph import configuration, plan
from scripts.morph.cloud import Bounds, Cloud
from scripts.morph.configuration import STAGES, Options, Target
from scripts.morph.deployment import Deployment, Say, handling
from scripts.morph.errors import Failed, Interrupted
from scripts.morph.masking import Mask, secrets_of
from scripts.morph.steps import steps

DONE, FAILED, UNUSABLE = 0, 1, 2


def main(
    arguments: Sequence[str] | None = None,
    environ: Mapping[str, str] = os.environ,
    bounds: Bounds = Bounds(),  # noqa: B008 - frozen
) -> int:
    """Returns the exit code: 0, 1 for a failure, 2 for an unusable configuration, 128
    and the signal's number."""
    asked = _parser().parse_args(arguments)
    mask = Mask(secrets_of(_all_secrets(examined(environ)[0])))
    try:
        with _signals():
            return _act(asked, environ, bounds, mask)
    except Refused as error:
        for problem in error.problems:
            print(mask(str(problem)), file=sys.stderr)
        return UNUSABLE
    except Failed as error:
        print(f"failed: {mask(str(error))}", file=sys.stderr)
        return FAILED
    except Interrupted as error:
        print("interrupted", file=sys.stderr)
        return 128 + error.signal_number


def _act(
    asked: argparse.Namespace,
    environ: Mapping[str, str],
    bounds: Bounds,
    mask: Mask,
) -> int:
    def say(line: str) -> None:
        print(mask(line), flush=True)

    options = Options(
        asked.name, asked.stage, asked.vcpus, asked.memory_mb, asked.disk_mb
    )
    if asked.destroy:
        target = configuration.read_target(environ, options)
        return _destroy(asked, target, bounds, say)
    found = configuration.read(environ, options)
    planned = tuple(steps(str(found.base)))
    for line in plan.lines(found, planned, asked.health_seconds):
        say(line)
    if asked.dry_run:
        say("dry run: the configuration is complete; nobody was contacted")
        return DONE
    cloud = Cloud(found.target, bounds)
    deployment = Deployment(cloud, found.target, say, asked.health_seconds)
    say(f"deployed: {deployment.deploy(found, planned)}")
    return DONE


def _destroy(
    asked: argparse.Namespace, target: Target, bounds: Bounds, say: Say
) -> int:
    for line in plan.account(target):
        say(line)
    if asked.dry_run:
        say("dry run: every instance of this deployment would be drained and stopped")
        return DONE
    cloud = Cloud(target, bounds)
    Deployment(cloud, target, say, asked.health_seconds).destroy(
        snapshots=asked.snapshots
    )
    say("destroyed")
    return DONE


def _all_secrets(environ: Mapping[str, str]) -> Mapping[str, str]:
    """What is passed on, and the keys of Morph."""
    keys = {n: v for n, v in environ.items() if n.startswith(configuration.KEY)}
    return {**configuration.passed_on(environ), **keys}


@contextmanager
def _signals() -> Iterator[None]:
    """Raise `Interrupted` for SIGINT and SIGTERM."""

    def interrupt(number: int, _: FrameType | None) -> None:
        raise Interrupted(number)

    with handling(interrupt):
        yield


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", text):
        raise argparse.ArgumentTypeError(
            "use up to 40 lower-case letters, digits and hyphens"
        )
    return text


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**31:
        raise argparse.ArgumentTypeError("use a positive number")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deploy_service.py",
        description="Deploy the service to Morph. docs/deploy-morph.md explains the "
        "variables that configure it.",
    )
    add = parser.add_argument
    add("--dry-run", action="store_true", help="check everything, contact nobody")
    add("--destroy", action="store_true", help="stop the instances of a deployment")
    add(
        "--snapshots",
        action="store_true",
        help="with --destroy: also delete the snapshots, which all deployments share",
    )
    add("--stage", choices=STAGES, help="selects the key of Morph, and the deployment")
    add("--name", type=_name, default="responses-proxy", help="of the deployment")
    add("--vcpus", type=_positive, default=2, help="with a base image (default: 2)")
    add("--memory-mb", type=_positive, default=4096, help="the same (default: 4096)")
    add("--disk-mb", type=_positive, default=16384, help="the same (default: 16384)")
    add(
        "--health-seconds",
        type=_positive,
        default=180,
        help="longest wait for a healthy instance (default: 180)",
    )
    return parser
