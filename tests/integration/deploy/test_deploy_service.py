"""`deploy_service.py` with the real SDK against a stand-in for Morph's API, on which
commands really run: snapshots, health, rollback, and where secrets go."""

import json
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.morph.api import FakeMorph, fake_morph
from tests.support.morph.command import COMPLETE, HIDDEN, Done, Running, run

SERVING = {"app": "responses-proxy", "name": "responses-proxy", "stage": "prod"}
OLD = "morphvm_old"
STRANGER = "morphvm_stranger"
EXEC = "/instance/[^/]+/exec"
PRICE = """
[[price]]
model = "gpt-5"
valid_from = 2025-08-07
input = 1.25
cached_input = 0.125
output = 10.0
"""


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[FakeMorph]:
    """With an older deployment that serves, and an instance of somebody else."""
    with fake_morph(tmp_path / "morph") as fake:
        fake.add_snapshot("snapshot_builder")
        fake.add_instance(OLD, {**SERVING, "role": "serving"})
        fake.add_instance(STRANGER, {"app": "other", "name": "responses-proxy"})
        yield fake


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeMorph]:
    """After a deployment of this checkout."""
    with fake_morph(tmp_path_factory.mktemp("built") / "morph") as fake:
        fake.add_snapshot("snapshot_builder")
        assert deploy(fake).code == 0
        yield fake


@pytest.fixture
def morph(bare: FakeMorph, built: FakeMorph) -> FakeMorph:
    """The same with the snapshots of all steps, which are then not built."""
    bare.adopt(built)
    return bare


def given(morph: FakeMorph, **changes: str) -> dict[str, str]:
    return {**COMPLETE, "MORPH_BASE_URL": f"{morph.url}/api", **changes}


def deploy(morph: FakeMorph, *arguments: str, **changes: str) -> Done:
    return run(given(morph, **changes), *arguments)


def started(morph: FakeMorph, id_: str) -> dict[str, Any]:
    """What the service on an instance was started with."""
    text = (morph.machines.disk(id_) / "started.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


def assert_nothing_changed(morph: FakeMorph) -> None:
    """The old deployment serves, and nothing else of ours runs."""
    assert sorted(morph.instances) == [OLD, STRANGER]
    assert (morph.machines.disk(OLD) / "started.json").exists()


def assert_hidden(morph: FakeMorph, done: Done) -> None:
    """No secret in the output, in a request to the API, or in a snapshot."""
    for text in (done.text, morph.said(), morph.kept_text()):
        assert not [secret for secret in HIDDEN if secret in text]


def test_a_deployment_serves_and_then_replaces_the_old_one(bare: FakeMorph) -> None:
    done = deploy(bare)
    assert (done.code, done.err) == (0, "")

    (new,) = bare.running(**SERVING, role="serving")
    assert new != OLD
    assert done.out.splitlines()[-1] == f"deployed: {bare.url}/service/{new}"
    assert bare.instances[new]["ttl"]["ttl_seconds"] is None
    assert OLD in bare.stopped
    assert (
        "stop responses-proxy"
        in (bare.machines.disk(OLD) / "systemctl.log").read_text()
    )
    assert sorted(bare.instances) == sorted([new, STRANGER])
    assert_hidden(bare, done)


def test_the_service_gets_its_environment_and_files(
    morph: FakeMorph, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.toml"
    # More than one piece of an upload.
    prices.write_text("# our prices\n" * 20_000 + PRICE)
    done = deploy(morph, PROXY_PRICES_FILE=str(prices))
    assert done.code == 0
    (new,) = morph.running(**SERVING)
    service = started(morph, new)
    disk = morph.machines.disk(new)

    assert service["argv"] == ["up"]
    environment = service["environment"]
    for name, value in COMPLETE.items():
        if not name.startswith("MORPH_") and name != "PROXY_ALLOWED_HOSTS":
            assert environment[name] == value
    assert environment["PROXY_ALLOWED_HOSTS"] == "proxy.example.com,127.0.0.1"
    assert environment["PROXY_HOST"] == "0.0.0.0"
    assert environment["PROXY_REQUIRE_KEYS"] == "true"
    assert not [name for name in environment if name.startswith("MORPH_")]
    assert service["files"]["PROXY_PRICES_FILE"] == prices.read_text()

    file = disk / "etc/responses-proxy/deployment.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert not [path.name for path in (disk / "run").iterdir()]  # the key is gone


def test_what_is_installed_is_this_checkout(morph: FakeMorph) -> None:
    assert deploy(morph).code == 0
    (new,) = morph.running(**SERVING)
    log = (morph.machines.disk(new) / "pip.log").read_text().splitlines()
    assert "--require-hashes --only-binary :all: -r requirements.lock" in log[0]
    assert "--no-deps --no-build-isolation --no-index" in log[1]
    assert len(log) == 2


def test_a_second_run_reuses_the_snapshots(morph: FakeMorph) -> None:
    snapshots = set(morph.snapshots)
    done = deploy(morph)
    assert done.code == 0
    assert done.out.count("reuse its snapshot") == 3
    assert set(morph.snapshots) == snapshots
    again = [path for method, path, _ in morph.requests if method == "POST"]
    assert len([path for path in again if "?snapshot_id=" in path]) == 1  # no builder
    assert len(morph.running(**SERVING)) == 1


def test_only_the_steps_after_a_change_are_built(morph: FakeMorph) -> None:
    last = max(s for s, it in morph.snapshots.items() if it["metadata"])
    assert morph.snapshots[last]["metadata"]["step"] == "application"
    del morph.snapshots[last]
    done = deploy(morph)
    assert done.code == 0
    assert "step dependencies: reuse its snapshot" in done.out
    assert "step application: build" in done.out
    pip = (morph.machines.disk(morph.running(**SERVING)[0]) / "pip.log").read_text()
    assert pip.count("requirements.lock") == 1


def test_a_base_image_becomes_a_snapshot_once(bare: FakeMorph) -> None:
    image = {"MORPH_BUILDER_SNAPSHOT_ID": "", "MORPH_BASE_IMAGE_ID": "morphvm-minimal"}
    assert deploy(bare, **image).code == 0
    made = [body for method, path, body in bare.requests if path == "/api/snapshot"]
    assert len(made) == 1
    assert json.loads(made[0])["image_id"] == "morphvm-minimal"


def test_an_unhealthy_instance_is_rolled_back(morph: FakeMorph) -> None:
    morph.healthy = lambda _: False
    done = deploy(morph, "--health-seconds", "1")
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert "not healthy within 1 s: /readyz: 503. The log ends: " in line
    assert_nothing_changed(morph)
    assert_hidden(morph, done)


@pytest.mark.parametrize(
    ("state", "method", "path", "what"),
    [
        ("morph", "GET", "/instance", "list instances"),
        ("bare", "GET", "/snapshot", "look for a snapshot"),
        ("bare", "GET", "/snapshot/snapshot_builder", "find snapshot snapshot_builder"),
        ("bare", "POST", "/instance", "start an instance"),
        ("morph", "POST", "/instance", "start an instance"),
        ("bare", "POST", EXEC, "start the step system"),
        ("bare", "POST", "/instance/[^/]+/snapshot", "make a snapshot of"),
        ("morph", "POST", "/instance/[^/]+/http", "expose port 8000"),
        ("morph", "POST", "/instance/[^/]+/ttl", "keep "),
        ("morph", "POST", "/instance/[^/]+/metadata", "keep "),
    ],
)
def test_an_error_of_the_api_changes_nothing(
    request: pytest.FixtureRequest, state: str, method: str, path: str, what: str
) -> None:
    morph: FakeMorph = request.getfixturevalue(state)
    morph.fault(method, path)
    done = deploy(morph)
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert line.startswith(f"failed: {what}")
    assert "the API answered 500" in line
    assert_nothing_changed(morph)
    assert_hidden(morph, done)


@pytest.mark.parametrize("path", ["/instance", "/instance/[^/]+/metadata"])
def test_an_answer_that_was_lost_leaves_nothing(morph: FakeMorph, path: str) -> None:
    morph.fault("POST", path, status=0, after_effect=True)
    done = deploy(morph)
    assert done.code == 1
    assert "RemoteProtocolError" in done.err
    assert_nothing_changed(morph)


def test_a_step_that_fails_says_why(bare: FakeMorph) -> None:
    (bare.machines.bin / "pip-fails").touch()
    done = deploy(bare)
    assert done.code == 1
    assert done.err == "failed: step dependencies: exit code 1: no such wheel\n"
    assert_nothing_changed(bare)
    # The step before it is not repeated.
    (bare.machines.bin / "pip-fails").unlink()
    assert "step system: reuse its snapshot" in deploy(bare).out


def test_an_old_instance_that_does_not_answer_is_stopped(morph: FakeMorph) -> None:
    morph.fault("POST", f"/instance/{OLD}/exec")
    done = deploy(morph)
    assert done.code == 0
    assert f"warning: drain {OLD}" in done.out
    assert OLD in morph.stopped


def test_an_old_instance_that_cannot_be_stopped_is_named(morph: FakeMorph) -> None:
    morph.fault("DELETE", f"/instance/{OLD}")
    done = deploy(morph)
    assert done.code == 1
    assert done.err.startswith(f"failed: not every instance was stopped: stop {OLD}")
    assert len(morph.running(**SERVING, role="serving")) == 2


def test_a_refused_key_is_not_printed(morph: FakeMorph) -> None:
    done = deploy(morph, MORPH_API_KEY="wrong-key-2c8e41")
    assert done.code == 1
    assert "the API answered 401" in done.err
    assert "wrong-key-2c8e41" not in done.text


def test_a_clean_up_that_fails_says_what_happens_next(bare: FakeMorph) -> None:
    (bare.machines.bin / "pip-fails").touch()
    bare.fault("DELETE", "/instance/.*")
    done = deploy(bare)
    assert done.code == 1
    (leftover,) = set(bare.instances) - {OLD, STRANGER}
    assert f"warning: stop {leftover}" in done.out
    assert "stops by itself 3600 s after its start" in done.out
    ttl = bare.instances[leftover]["ttl"]
    assert ttl == {"ttl_seconds": 3600, "ttl_action": "stop"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("state", "path"),
    [
        ("bare", "/instance"),
        ("bare", EXEC),
        ("bare", "/instance/[^/]+/snapshot"),
        ("morph", "/instance/[^/]+/metadata"),
    ],
)
def test_a_signal_in_the_middle_of_a_call_cleans_up(
    request: pytest.FixtureRequest, state: str, path: str, number: signal.Signals
) -> None:
    morph: FakeMorph = request.getfixturevalue(state)
    hold = threading.Event()
    fault = morph.fault("POST", path, after_effect=True, hold=hold)
    process = Running(given(morph))
    assert_interrupted(morph, process, fault.seen, number)


def test_a_signal_while_it_waits_for_health_cleans_up(morph: FakeMorph) -> None:
    morph.healthy = lambda _: False
    process = Running(given(morph))
    assert_interrupted(morph, process, morph.probed, signal.SIGINT)


def test_a_signal_while_the_old_one_drains_leaves_the_new_one(morph: FakeMorph) -> None:
    hold = threading.Event()
    fault = morph.fault("POST", f"/instance/{OLD}/exec", after_effect=True, hold=hold)
    process = Running(given(morph))
    assert fault.seen.wait(60), process.ended()
    process.send_signal(signal.SIGINT)
    done = process.ended()
    assert done.code == 128 + signal.SIGINT
    assert "is healthy and serves at" in done.out
    assert len(morph.running(**SERVING, role="serving")) == 2  # the next run stops both


def assert_interrupted(
    morph: FakeMorph,
    process: Running,
    ready: threading.Event,
    number: signal.Signals,
) -> None:
    assert ready.wait(60), process.ended()
    process.send_signal(number)
    done = process.ended()
    assert done.code == 128 + number
    assert done.err == "interrupted\n"
    assert_nothing_changed(morph)
    assert_hidden(morph, done)


def test_destroy_stops_this_deployment_alone(morph: FakeMorph) -> None:
    other = {**SERVING, "stage": "stage", "role": "serving"}
    morph.add_instance("morphvm_stage", other)
    morph.add_instance("morphvm_failed", {**SERVING, "role": "candidate"})
    morph.add_snapshot("snapshot_ours", metadata={"app": "responses-proxy"})
    key = {"MORPH_API_KEY": COMPLETE["MORPH_API_KEY"]}
    only = {**key, "MORPH_BASE_URL": f"{morph.url}/api"}

    done = run(only, "--destroy")
    assert (done.code, done.err) == (0, "")
    assert sorted(morph.instances) == ["morphvm_stage", STRANGER]
    assert "snapshot_ours" in morph.snapshots

    assert run(only, "--destroy", "--snapshots").code == 0
    assert sorted(morph.snapshots) == ["snapshot_builder"]
