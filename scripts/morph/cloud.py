"""Morph through its SDK: what a deployment needs, with bounds, and errors of one line.

Commands run by the HTTP API, not by SSH. The SDK sends a command again if the
connection breaks, so a command must not mind running twice.
"""

import shlex
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256

import httpx
from morphcloud.api import (
    ApiError,
    Instance,
    MorphCloudClient,
    Snapshot,
    SnapshotStatus,
)
from pydantic import ValidationError

from scripts.morph.configuration import SNAPSHOT, Base, Target
from scripts.morph.errors import Failed

Labels = Mapping[str, str]

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 2.0
# Linux limits one argument of a command to 128 KiB.
CHUNK_BYTES = 90_000
LONGEST_CAUSE = 500  # characters


@dataclass(frozen=True)
class Bounds:
    """Seconds."""

    call: float = 60
    ready: float = 300  # an instance or a snapshot
    step: float = 1200


class Cloud:
    """One account of Morph. Every method raises `Failed`."""

    def __init__(self, target: Target, bounds: Bounds) -> None:
        self._client = MorphCloudClient(api_key=target.key, base_url=target.address)
        # The SDK sets none: a call without an answer would never end.
        self._client._http_client.timeout = httpx.Timeout(bounds.call)
        self._bounds = bounds

    def base_snapshot(self, base: Base, digest: str, labels: Labels) -> str:
        """The id of the snapshot to start from. That of an image is made once."""
        with _explained(f"find {base}"):
            if base.variable == SNAPSHOT:
                return self._client.snapshots.get(base.id).id
            if (found := self.find_snapshot(digest)) is not None:
                return found
            return self._client.snapshots.create(
                image_id=base.id,
                vcpus=base.vcpus,
                memory=base.memory_mb,
                disk_size=base.disk_mb,
                digest=digest,
                metadata=dict(labels),
            ).id

    def find_snapshot(self, digest: str) -> str | None:
        """The id of the newest usable snapshot with `digest`."""
        with _explained("look for a snapshot"):
            found = [
                snapshot
                for snapshot in self._client.snapshots.list(digest=digest)
                if snapshot.digest == digest and snapshot.status == SnapshotStatus.READY
            ]
        return max(found, key=lambda each: each.created).id if found else None

    def snapshots(self, labels: Labels) -> Sequence[Snapshot]:
        """All snapshots with these labels."""
        with _explained("list snapshots"):
            found = self._client.snapshots.list(metadata=dict(labels))
        return [each for each in found if _has(each.metadata, labels)]

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        with _explained(f"delete {snapshot.id}"):
            snapshot.delete()

    def start(self, snapshot: str, labels: Labels, ttl_seconds: int) -> Instance:
        """Start an instance, and wait for it. It stops by itself after `ttl_seconds`,
        whatever happens to this process."""
        with _explained(f"start an instance from {snapshot}"):
            return self._client.instances.start(
                snapshot,
                metadata=dict(labels),
                ttl_seconds=ttl_seconds,
                ttl_action="stop",
                timeout=self._bounds.ready,
            )

    def instances(self, labels: Labels) -> Sequence[Instance]:
        """All instances with these labels. The labels are compared here too: an
        instance of somebody else must never be stopped."""
        with _explained("list instances"):
            found = self._client.instances.list(metadata=dict(labels))
        return [each for each in found if _has(each.metadata, labels)]

    def stop(self, instance: str) -> None:
        """Stop an instance; one that is gone is stopped."""
        with _explained(f"stop {instance}"):
            try:
                self._client.instances.stop(instance)
            except ApiError as error:
                if error.status_code != httpx.codes.NOT_FOUND:
                    raise

    def save(self, instance: Instance, digest: str, labels: Labels) -> str:
        """Make a snapshot of the instance and return its id."""
        with _explained(f"make a snapshot of {instance.id}"):
            snapshot = instance.snapshot(digest=digest, metadata=dict(labels))
            snapshot.wait_until_ready(timeout=self._bounds.ready)
        return snapshot.id

    def expose(self, instance: Instance, name: str, port: int) -> str:
        """Expose a port and return its URL."""
        with _explained(f"expose port {port} of {instance.id}"):
            return instance.expose_http_service(name, port).rstrip("/")

    def keep(self, instance: Instance, labels: Labels) -> None:
        """Let the instance run without end, under its final labels."""
        with _explained(f"keep {instance.id}"):
            instance.set_ttl(None)
            instance.set_metadata(dict(labels))

    def run(self, instance: Instance, script: str, what: str) -> str:
        """Run a short shell script and return its output."""
        with _explained(what):
            command = f"/bin/sh -c {shlex.quote(script)}"
            result = instance.exec(command, timeout=self._bounds.call)
        if result.exit_code != 0:
            cause = one_line(result.stderr or result.stdout)
            raise Failed(f"{what}: exit code {result.exit_code}: {cause}")
        return result.stdout

    def run_long(self, instance: Instance, script: str, name: str) -> None:
        """Run a script that may take minutes. It runs detached, so that it does not
        depend on one connection, and only once."""
        place = f"/var/tmp/responses-proxy-{name}"  # noqa: S108 - on the instance
        body = shlex.quote(script)
        inner = shlex.quote(
            f"/bin/sh -c {body} >{place}/log 2>&1 </dev/null; "
            f"echo $? >{place}/code.partial; mv {place}/code.partial {place}/code"
        )
        self.run(
            instance,
            f"if mkdir {place} 2>/dev/null; then "
            f"setsid /bin/sh -c {inner} >/dev/null 2>&1 </dev/null & fi",
            f"start the step {name}",
        )
        code = ""
        for _ in until(self._bounds.step):
            if code := self._code(instance, place, name):
                break
        if not code:
            raise Failed(f"step {name}: not done in {self._bounds.step:g} s")
        log = self.run(instance, f"tail -c 2000 {place}/log; rm -rf {place}", name)
        if code != "0":
            raise Failed(f"step {name}: exit code {code}: {one_line(log)}")

    def _code(self, instance: Instance, place: str, name: str) -> str:
        script = f"cat {place}/code 2>/dev/null || true"
        return self.run(instance, script, f"watch the step {name}").strip()

    def upload(self, instance: Instance, data: bytes, path: str) -> None:
        """Write a file of mode 0600. In pieces, each of which may be sent twice."""
        encoded = b64encode(data).decode()
        what = f"upload {path}"
        parts = f"{path}.parts"
        make = f'umask 077; mkdir -p "$(dirname {path})"; mkdir -p {parts}'
        for number, start in enumerate(range(0, len(encoded), CHUNK_BYTES)):
            piece = encoded[start : start + CHUNK_BYTES]
            part = f"{parts}/{number:06d}"
            self.run(instance, f"{make}; printf %s {piece} >{part}", what)
        self.run(
            instance,
            f"set -e; umask 077; if [ -d {parts} ]; then "
            f"cat {parts}/* | base64 -d >{path}; rm -rf {parts}; fi; "
            f"echo '{sha256(data).hexdigest()}  {path}' | sha256sum -c - >/dev/null",
            what,
        )


def until(seconds: float) -> Iterator[None]:
    """Yields, with growing pauses, until the time is over."""
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE_SECONDS
    yield
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)
        yield


def _has(metadata: Labels, labels: Labels) -> bool:
    return labels.items() <= metadata.items()


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn every error of the SDK into one line that says what was tried."""
    try:
        yield
    except Failed:
        raise
    except ApiError as error:
        cause = f"the API answered {error.status_code}: {error.response_body}"
        raise Failed(f"{what}: {one_line(cause)}") from None
    except ValidationError as error:
        cause = f"the API's answer was not understood: {error.errors()[0]['loc']}"
        raise Failed(f"{what}: {cause}") from None
    except StopIteration:  # of `expose_http_service`
        raise Failed(f"{what}: the API gave no URL") from None
    except (httpx.HTTPError, OSError, RuntimeError, ValueError, KeyError) as error:
        cause = f"{type(error).__name__}: {error}"
        raise Failed(f"{what}: {one_line(cause)}") from None


def one_line(text: str) -> str:
    """The end of the text, where the cause is. Cut between words: half a secret would
    not be found, and masked."""
    line = " ".join(text.split())
    if len(line) <= LONGEST_CAUSE:
        return line
    return f"... {line[-LONGEST_CAUSE:].partition(' ')[2]}"
