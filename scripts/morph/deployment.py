"""The deployment itself. A new instance replaces the old ones when it is healthy; until
then every failure, and every signal, stops the new one and changes nothing else."""

import json
import signal
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
from morphcloud.api import Instance

from scripts.morph import artifact
from scripts.morph.cloud import Cloud, one_line, until
from scripts.morph.configuration import Base, Configuration, Target
from scripts.morph.errors import Failed
from scripts.morph.on_instance import seal
from scripts.morph.steps import (
    ARCHIVE,
    DEPLOYMENT,
    KEY,
    ON_INSTANCE,
    SEALED,
    SERVICE,
    Step,
)

APP = "responses-proxy"
TTL_SECONDS = 3600  # of an instance that is not kept

Say = Callable[[str], None]


@dataclass(frozen=True)
class Deployment:
    """One run of the command."""

    cloud: Cloud
    target: Target
    say: Say
    health_seconds: float
    run: str = field(default_factory=lambda: uuid4().hex)

    def deploy(self, configuration: Configuration, steps: Sequence[Step]) -> str:
        """Returns the URL of the new instance."""
        with self._rolled_back():
            old = self.cloud.instances(self._labels(role="serving"))
            snapshot = self._build(configuration.base, steps)
            self.say("start an instance")
            labels = self._labels(role="candidate", run=self.run)
            instance = self.cloud.start(snapshot, labels, TTL_SECONDS)
            url = self._launch(instance, configuration)
            self._wait_until_healthy(instance, url)
            self.cloud.keep(instance, self._labels(role="serving", run=self.run))
        self.say(f"{instance.id} is healthy and serves at {url}")
        self._retire(old)
        return url

    def destroy(self, *, snapshots: bool) -> None:
        """Stop every instance of this deployment, of failed runs too. Snapshots are
        shared by all deployments of the account."""
        self._retire(self.cloud.instances(self._labels()))
        for snapshot in self.cloud.snapshots({"app": APP}) if snapshots else ():
            self.cloud.delete_snapshot(snapshot)
            self.say(f"deleted {snapshot.id}")

    def _labels(self, **more: str) -> dict[str, str]:
        target = self.target
        return {"app": APP, "name": target.name, "stage": target.stage, **more}

    def _build(self, base: Base, steps: Sequence[Step]) -> str:
        """The snapshot with every step done; what is cached is reused."""
        done, snapshot = self._cached(steps)
        for step in steps[:done]:
            self.say(f"step {step.name}: reuse its snapshot")
        if done == len(steps) and snapshot is not None:
            return snapshot
        if snapshot is None:
            digest = sha256(f"{APP}\n{base}".encode()).hexdigest()
            snapshot = self.cloud.base_snapshot(base, digest, {"app": APP})
        labels = self._labels(role="builder", run=self.run)
        builder = self.cloud.start(snapshot, labels, TTL_SECONDS)
        for step in steps[done:]:
            self.say(f"step {step.name}: build")
            snapshot = self._do(builder, step)
        self.cloud.stop(builder.id)
        return snapshot

    def _cached(self, steps: Sequence[Step]) -> tuple[int, str | None]:
        """The number of steps that a snapshot already has, and that snapshot."""
        for done in range(len(steps), 0, -1):
            if (found := self.cloud.find_snapshot(steps[done - 1].digest)) is not None:
                return done, found
        return 0, None

    def _do(self, builder: Instance, step: Step) -> str:
        if step.files:
            self.cloud.upload(builder, artifact.packed(step.files), ARCHIVE)
        self.cloud.run_long(builder, step.script, step.name)
        return self.cloud.save(builder, step.digest, {"app": APP, "step": step.name})

    def _launch(self, instance: Instance, configuration: Configuration) -> str:
        """Expose the port, hand the environment over and start the service."""
        url = self.cloud.expose(instance, APP, configuration.port)
        host = urlsplit(url).hostname or ""
        environment = dict(configuration.environment)
        given = environment.get("PROXY_ALLOWED_HOSTS")
        environment["PROXY_ALLOWED_HOSTS"] = f"{given},{host}" if given else host
        self._hand_over(instance, environment, configuration.files)
        self.say("start the service")
        script = f"rm -f {KEY} {SEALED} && systemctl enable --now {SERVICE}"
        self.cloud.run(instance, script, "start the service")
        return url

    def _hand_over(
        self,
        instance: Instance,
        environment: Mapping[str, str],
        files: Mapping[str, bytes],
    ) -> None:
        self.say("hand the environment over, encrypted")
        what = "hand the environment over"
        encoded = {name: b64encode(data).decode() for name, data in files.items()}
        document = json.dumps({"environment": dict(environment), "files": encoded})
        public_key = self.cloud.run(instance, f"{ON_INSTANCE} key {KEY}", what)
        try:
            sealed = seal(document.encode(), public_key)
        except ValueError:
            raise Failed(f"{what}: the instance gave no public key") from None
        self.cloud.upload(instance, sealed, SEALED)
        command = f"{ON_INSTANCE} write {KEY} {SEALED} {DEPLOYMENT}"
        self.cloud.run(instance, command, what)

    def _wait_until_healthy(self, instance: Instance, url: str) -> None:
        self.say(f"wait until {url}/readyz answers 200")
        answer = ""
        for _ in until(self.health_seconds):
            if (answer := _readiness(url)) == "200":
                return
        raise Failed(
            f"not healthy within {self.health_seconds:g} s: /readyz: {answer}. "
            f"The log ends: {self._log(instance)}"
        )

    def _log(self, instance: Instance) -> str:
        script = f"journalctl --unit {SERVICE} --lines 20 --output cat 2>&1"
        try:
            log = self.cloud.run(instance, script, "read the log")
        except Failed as error:
            return str(error)
        return one_line(log) or "(empty)"

    def _retire(self, old: Sequence[Instance]) -> None:
        """Drain and stop; raises `Failed` at the end if one could not be stopped."""
        failures = []
        for instance in old:
            script = f"systemctl stop {SERVICE} 2>/dev/null || true"
            try:
                self.say(f"drain and stop {instance.id}")
                self.cloud.run(instance, script, f"drain {instance.id}")
            except Failed as error:
                self.say(f"warning: {error}")  # it may not answer; it must end
            try:
                self.cloud.stop(instance.id)
            except Failed as error:
                failures.append(str(error))
        if failures:
            raise Failed(f"not every instance was stopped: {'; '.join(failures)}")

    @contextmanager
    def _rolled_back(self) -> Iterator[None]:
        """Stop what this run has started if it does not come to its end. The labels
        also find an instance whose start was not answered."""
        try:
            yield
        except BaseException:
            # Further signals are ignored: the clean-up is bounded.
            with handling(signal.SIG_IGN):
                self._clean_up()
            raise

    def _clean_up(self) -> None:
        self.say("roll back: stop what this run started")
        try:
            for instance in self.cloud.instances(self._labels(run=self.run)):
                self.cloud.stop(instance.id)
                self.say(f"stopped {instance.id}")
        except Failed as error:
            self.say(
                f"warning: {error}. What this run started stops by itself "
                f"{TTL_SECONDS} s after its start"
            )


def _readiness(url: str) -> str:
    try:
        return str(httpx.get(f"{url}/readyz", timeout=5).status_code)
    except httpx.HTTPError as error:
        return type(error).__name__


@contextmanager
def handling(handler: Any) -> Iterator[None]:
    """Set the handler of SIGINT and SIGTERM."""
    names = (signal.SIGINT, signal.SIGTERM)
    before = {name: signal.signal(name, handler) for name in names}
    try:
        yield
    finally:
        for name, previous in before.items():
            signal.signal(name, previous)
