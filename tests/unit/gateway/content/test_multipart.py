"""Forms: does a field name a file by its id, for any parser?"""

import pytest

from services.gateway.content.multipart import fault_of

FORM = (b"content-type", b"multipart/form-data; boundary=b")


def part(name: str, more: str = "", content: str = "x") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"{more}'
    return f"--b\r\n{head}\r\n\r\n{content}\r\n".encode()


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (part("file", '; filename="a.txt"\r\nContent-Type: text/plain') + b"--b--", 0),
        (part("purpose") + part("file", '; filename="file_id"') + b"--b--\r\n", 0),
        (part("file", content='name="file_id" in a text') + b"--b--", 0),
        (part("file_id") + b"--b--", 1),
        (part("FILE_ID") + b"--b--", 1),
        (part("file_ids[]") + b"--b--", 1),
        (part("file", '; name="file_id"') + b"--b--", 1),
        (part("file", '; filename="a\\"; name="file_id"') + b"--b--", 1),
        (part("file") + part("file_id").replace(b"\r\n", b"\n") + b"--b--", 1),
        (b"--b\r\nX: y\r\n\r\nz\r\n--b--", 1),
        (part("file").replace(b"; name", b";\r\n name") + b"--b--", 1),
        (
            (
                b'--b\r\nContent-Disposition: form-data; name="a"\r\n'
                b'content-disposition: form-data; name="file_id"\r\n\r\nx\r\n--b--'
            ),
            1,
        ),
        (part("a") * 65 + b"--b--", 1),
        (part("file", "; filename*=utf-8''a") + b"--b--", 1),
    ],
)
def test_a_form_that_names_a_file_by_its_id_is_refused(body: bytes, fault: int) -> None:
    assert (fault_of([FORM], body) is not None) == bool(fault)


@pytest.mark.parametrize(
    "kind",
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary=b; boundary=c",
        b"multipart/mixed; boundary=b",
        b'multipart/form-data; boundary="b"; boundary*=c',
    ],
)
def test_a_form_needs_one_plain_boundary(kind: bytes) -> None:
    assert fault_of([(b"content-type", kind)], b"--b--") is not None
