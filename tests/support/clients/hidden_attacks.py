"""Attempts that hide another tenant's id, and endpoints closed to proxy keys."""

from collections.abc import Iterator
from typing import Any

from tests.support.clients.attack import ENDPOINT, LIST, PREVIOUS, UNREADABLE, Attack


def hidden() -> Iterator[Attack]:
    """Ids that one parser sees and another does not."""
    plain = '{"model":"m","input":"hi","previous_response_id":"ID"}'
    twice = plain.replace("}", ',"previous_response_id":null}')

    def spelled(what: str, body: str, result: str, **more: Any) -> Attack:
        return Attack(
            f"POST /v1/responses: {what}",
            "resp",
            "POST",
            "/responses",
            result,
            body,
            **more,
        )

    escaped = plain.replace("previous_response_id", "previous\\u005fresponse_id")
    yield spelled("name spelled with an escape", escaped, PREVIOUS)
    yield spelled("name there twice", twice, UNREADABLE)
    for coding in ("gzip", "zstd"):
        headers = {"content-encoding": coding}
        yield spelled(
            f"compressed with {coding}",
            plain,
            PREVIOUS,
            headers=headers,
            written=coding,
        )
    yield spelled("UTF-16", plain, UNREADABLE, written="utf-16")
    yield spelled("UTF-16 without a mark", plain, UNREADABLE, written="utf-16-le")
    yield spelled(
        "UTF-8 with a byte order mark", plain, UNREADABLE, written="utf-8-sig"
    )
    yield spelled(
        "coding that is not opened",
        plain,
        UNREADABLE,
        headers={"content-encoding": "br"},
    )
    yield spelled(
        "coding that it does not have",
        plain,
        UNREADABLE,
        headers={"content-encoding": "gzip"},
    )
    yield spelled(
        "form instead of JSON",
        "previous_response_id=ID",
        UNREADABLE,
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    form = (
        '--b\r\nContent-Disposition: form-data; name="file_id"\r\n\r\nID\r\n--b--\r\n'
    )
    yield spelled(
        "multipart form",
        form.replace("file_id", "previous_response_id"),
        UNREADABLE,
        headers={"content-type": "multipart/form-data; boundary=b"},
    )
    for what, body in (
        ("a form with file_id", form),
        ("file_id after a line break", form.replace("; name", ";\r\n name")),
        (
            "file_id with an extended name",
            form.replace('name="file_id"', "name*=utf-8''file%5Fid"),
        ),
        (
            "file_id within another part",
            form.replace("file_id", "file").replace("ID\r\n", form),
        ),
    ):
        yield Attack(
            f"POST /v1/containers/OWN_cntr/files: {what}",
            "file-",
            "POST",
            "/containers/OWN_cntr/files",
            UNREADABLE,
            body,
            {"content-type": "multipart/form-data; boundary=b"},
        )
    for path in (
        "/responses/%49D",
        "/responses/ID/",
        "//responses/ID",
        "/responses/ID;x",
        "/responses/ID%20",
        "/responses/x/ID",
    ):
        shown = path.replace("%49D", "{escaped id}").replace("ID", "{id}")
        yield Attack(f"GET /v1{shown}", "resp", "GET", path, ENDPOINT)


def closed() -> Iterator[Attack]:
    """Endpoints that keys may not use."""
    for path in (
        "/files",
        "/vector_stores",
        "/batches",
        "/containers",
        "/responses",
        "/conversations",
        "/chat/completions",
        "/assistants",
        "/fine_tuning/jobs",
        "/evals",
        "/videos",
    ):
        yield Attack(f"GET /v1{path}", "resp", "GET", path, LIST)
    for method, path, kind in (
        ("POST", "/batches", "file-"),
        ("GET", "/batches/ID", "batch"),
        ("POST", "/batches/ID/cancel", "batch"),
        ("GET", "/chat/completions/ID", "resp"),
        ("DELETE", "/models/ID", "resp"),
        ("POST", "/assistants", "file-"),
        ("POST", "/threads", "file-"),
        ("GET", "/threads/ID", "resp"),
        ("POST", "/fine_tuning/jobs", "file-"),
        ("POST", "/evals", "file-"),
        ("GET", "/organization/usage/completions", "resp"),
        ("POST", "/videos", "file-"),
        ("POST", "/realtime/client_secrets", "resp"),
        ("GET", "/skills/ID", "resp"),
        ("POST", "/new_endpoint", "resp"),
    ):
        shown = path.replace("ID", "{id}")
        body = None if method in ("GET", "DELETE") else '{"input_file_id":"ID"}'
        yield Attack(f"{method} /v1{shown}", kind, method, path, ENDPOINT, body)
