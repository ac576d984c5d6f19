"""The part of Morph's HTTP API that its SDK calls for a deployment, over loopback."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.support.morph.sandbox import Machines

KEY = "morph-key-7f3a9c"
SPEC = {"vcpus": 2, "memory": 4096, "disk_size": 16384}

Json = dict[str, Any]


@dataclass
class Fault:
    """What happens to requests that match instead of, or after, their effect."""

    method: str
    path: str  # a pattern
    status: int = 500  # 0 closes the connection without an answer
    after_effect: bool = False
    hold: threading.Event | None = None  # wait for it before answering
    seen: threading.Event = field(default_factory=threading.Event)


class FakeMorph:
    """Instances and snapshots of one account; records what it was asked."""

    def __init__(self, root: Path) -> None:
        self.machines = Machines(root)
        self.instances: dict[str, Json] = {}
        self.snapshots: dict[str, Json] = {}
        self.stopped: list[str] = []
        self.commands: list[tuple[str, str]] = []
        self.requests: list[tuple[str, str, str]] = []  # method, path, body
        self.faults: list[Fault] = []
        self.healthy: Callable[[str], bool] = lambda _: True
        self.probed = threading.Event()
        self.url = ""
        self._count = 0
        self._lock = threading.Lock()

    def fault(self, method: str, path: str, **more: Any) -> Fault:
        """From now on, break the requests of this method and path pattern."""
        self.faults.append(Fault(method, path, **more))
        return self.faults[-1]

    def add_snapshot(self, id_: str, **more: Any) -> None:
        self.snapshots[id_] = self._new("snapshot", id_, **more)

    def adopt(self, other: "FakeMorph") -> None:
        """The snapshots that were built at another stand-in."""
        for id_, snapshot in other.snapshots.items():
            if id_ not in self.snapshots:
                self.machines.take(other.machines.disk(id_), id_)
                self.snapshots[id_] = {**snapshot}
        self._count = other._count

    def add_instance(self, id_: str, metadata: Mapping[str, str]) -> None:
        """An instance that is there before the test; its service runs."""
        self.instances[id_] = self._instance(id_, "snapshot_old", dict(metadata))
        self.machines.copy(None, id_)
        (self.machines.disk(id_) / "started.json").write_text("{}")

    def running(self, **metadata: str) -> list[str]:
        """Ids of the instances with these labels."""
        wanted = metadata.items()
        return [
            i for i, it in self.instances.items() if wanted <= it["metadata"].items()
        ]

    def kept_text(self) -> str:
        """Everything on the disks of snapshots, and what was recorded for them."""
        disks = [self.machines.disk(id_) for id_ in self.snapshots]
        files = [f for disk in disks for f in disk.rglob("*") if f.is_file()]
        texts = [file.read_bytes().decode(errors="replace") for file in files]
        return "\n".join([json.dumps(self.snapshots), *texts])

    def said(self) -> str:
        """Every request of the API: paths and bodies."""
        return "\n".join(" ".join(request) for request in self.requests)

    def id(self, kind: str) -> str:
        with self._lock:
            self._count += 1
            return f"{kind}_{self._count:04d}"

    def _new(self, kind: str, id_: str, **more: Any) -> Json:
        base = {"id": id_, "object": kind, "created": int(time.time()), "spec": SPEC}
        refs = {"image_id": "morphvm-minimal"}
        return {**base, "refs": refs, "status": "ready", "metadata": {}, **more}

    def _instance(self, id_: str, snapshot: str, metadata: Mapping[str, str]) -> Json:
        refs = {"snapshot_id": snapshot, "image_id": "morphvm-minimal"}
        networking: Json = {"internal_ip": "192.0.2.1", "http_services": []}
        return self._new(
            "instance", id_, refs=refs, networking=networking, metadata=metadata
        )

    # What a request does; found by its method and path.

    def post_snapshot(self, query: Mapping[str, str], body: Json) -> Json:
        id_ = self.id("snapshot")
        self.add_snapshot(id_, digest=body["digest"], metadata=body["metadata"])
        self.machines.copy(None, id_)
        return self.snapshots[id_]

    def post_instance(self, query: Mapping[str, str], body: Json) -> Json:
        source = self.snapshots[query["snapshot_id"]]["id"]
        id_ = self.id("morphvm")
        self.machines.copy(source, id_)
        self.instances[id_] = self._instance(id_, source, body["metadata"])
        ttl = {"ttl_seconds": body["ttl_seconds"], "ttl_action": body["ttl_action"]}
        self.instances[id_]["ttl"] = ttl
        return self.instances[id_]

    def save(self, id_: str, query: Mapping[str, str], body: Json) -> Json:
        snapshot = self.id("snapshot")
        self.machines.copy(id_, snapshot)
        self.add_snapshot(snapshot, digest=query["digest"], metadata=body["metadata"])
        return self.snapshots[snapshot]

    def exec(self, id_: str, query: Mapping[str, str], body: Json) -> Json:
        (command,) = body["command"]
        self.commands.append((id_, command))
        code, out, err = self.machines.run(id_, command)
        return {"exit_code": code, "stdout": out, "stderr": err}

    def http(self, id_: str, query: Mapping[str, str], body: Json) -> Json:
        url = f"{self.url}/service/{id_}"
        services = self.instances[id_]["networking"]["http_services"]
        services.append({"name": body["name"], "port": body["port"], "url": url})
        return self.instances[id_]

    def ttl(self, id_: str, query: Mapping[str, str], body: Json) -> Json:
        self.instances[id_]["ttl"] = body
        return self.instances[id_]

    def metadata(self, id_: str, query: Mapping[str, str], body: Json) -> Json:
        self.instances[id_]["metadata"] = body
        return self.instances[id_]

    def delete(self, kind: str, id_: str) -> Json:
        if kind == "instance":
            self.stopped.append(id_)
            return self.instances.pop(id_)
        return self.snapshots.pop(id_)

    def listed(self, kind: str, query: Mapping[str, str]) -> Json:
        everything = self.instances if kind == "instance" else self.snapshots
        wanted = {k[len("metadata[") : -1]: v for k, v in query.items() if "[" in k}
        found = [
            each
            for each in everything.values()
            if wanted.items() <= each["metadata"].items()
            and query.get("digest", each.get("digest")) == each.get("digest")
        ]
        return {"object": "list", "data": found}

    def answer(
        self, method: str, path: str, query: Mapping[str, str], body: Json
    ) -> Json:
        """Raises `KeyError` for what does not exist."""
        _, kind, *rest = path.removeprefix("/api").split("/")
        match method, rest:
            case "GET", []:
                return self.listed(kind, query)
            case "POST", []:
                made: Json = getattr(self, f"post_{kind}")(query, body)
                return made
            case "GET", [id_]:
                held: dict[str, Json] = getattr(self, f"{kind}s")
                return held[id_]
            case "DELETE", [id_]:
                return self.delete(kind, id_)
            case "POST", [id_, action]:
                name = {"snapshot": "save"}.get(action, action)
                done: Json = getattr(self, name)(id_, query, body)
                return done
        raise KeyError(path)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one write: two would wait for an acknowledgment
    fake: FakeMorph

    def do_GET(self) -> None:
        if self.path.startswith("/service/"):
            self._serve()
        else:
            self._api("GET")

    def do_POST(self) -> None:
        self._api("POST")

    def do_DELETE(self) -> None:
        self._api("DELETE")

    def _serve(self) -> None:
        _, _, id_, probe = self.path.split("/")
        assert probe == "readyz"
        self.fake.probed.set()
        started = (self.fake.machines.disk(id_) / "started.json").exists()
        ready = id_ in self.fake.instances and started and self.fake.healthy(id_)
        self._send(200 if ready else 503, {})

    def _api(self, method: str) -> None:
        length = int(self.headers.get("content-length") or 0)
        text = self.rfile.read(length).decode()
        url = urlsplit(self.path)
        self.fake.requests.append((method, self.path, text))
        if self.headers["authorization"] != f"Bearer {KEY}":
            self._send(401, {"detail": "unknown key"})
            return
        path = url.path.removeprefix("/api")
        fault = next((f for f in self.fake.faults if _hits(f, method, path)), None)
        query = dict(parse_qsl(url.query))
        if fault is None or fault.after_effect:
            status, answer = self._effect(method, url.path, query, text)
        else:
            status, answer = fault.status, {"detail": f"out of order, {KEY}"}
        if fault is not None:
            fault.seen.set()
            if fault.hold is not None:
                fault.hold.wait(60)
            if fault.status == 0:
                self.close_connection = True
                return
        self._send(status, answer)

    def _effect(
        self, method: str, path: str, query: Mapping[str, str], text: str
    ) -> tuple[int, Json]:
        try:
            body = json.loads(text) if text else {}
            return 200, self.fake.answer(method, path, query, body)
        except KeyError as error:
            return 404, {"detail": f"{error} does not exist"}

    def _send(self, status: int, answer: Json) -> None:
        data = json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True  # the command has ended

    def log_message(self, *_: Any) -> None:
        pass


def _hits(fault: Fault, method: str, path: str) -> bool:
    return fault.method == method and re.fullmatch(fault.path, path) is not None


@contextmanager
def fake_morph(root: Path) -> Iterator[FakeMorph]:
    """A running stand-in; its address is `url`, the API below `/api`."""
    fake = FakeMorph(root)
    handler = type("Handler", (_Handler,), {"fake": fake})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield fake
    finally:
        for fault in fake.faults:
            if fault.hold is not None:
                fault.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
