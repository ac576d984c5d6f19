"""Checks multipart forms for fields that name a file by its id. Pure.

Stricter than RFC 7578: a form that two parsers could read differently is refused."""

import re
from collections.abc import Sequence

from libs.common.headers import Header, find

MOST_PARTS = 64
LONGEST_HEAD = 2048  # bytes of one part's headers
_TYPE = re.compile(
    rb'multipart/form-data; *boundary=(?:"([0-9A-Za-z\'()+_,./:=? -]{0,69}'
    rb'[0-9A-Za-z\'()+_,./:=?-])"|([0-9A-Za-z\'+_.-]{1,70}))'
    rb"(?:; *charset=[A-Za-z0-9-]+)?",
    re.IGNORECASE,
)
# One field name in plain ASCII, optionally with a file name.
_DISPOSITION = re.compile(
    rb'content-disposition: *form-data; *name="?([A-Za-z0-9_.\[\]-]{1,100})"?'
    rb'(?:; *filename="[^"\r\n]*"(?:; *filename\*=[^;\r\n]*)?)?[ \t]*',
    re.IGNORECASE,
)
_NO_FILE_IDS = re.compile(rb"(?i)file_ids?(\[.*)?|input_file_id")


def fault_of(headers: Sequence[Header], body: bytes) -> str | None:
    """Why a form is refused, as the predicate of a sentence, or None."""
    found = _TYPE.fullmatch((find(headers, b"content-type") or b"").strip())
    if found is None:
        return "is a form without a plain boundary; send multipart/form-data with one"
    mark = b"--" + (found[1] or found[2])
    # Some parsers end a part at a boundary within a file's content: check each one.
    at, parts = body.find(mark), 0
    while at >= 0:
        at += len(mark)
        if body.startswith(b"--", at):
            break
        parts += 1
        fault = _fault_of_part(body, at)
        if fault is not None or parts > MOST_PARTS:
            return fault or f"is a form with more than {MOST_PARTS} parts; send fewer"
        at = body.find(mark, at)
    return None


def _fault_of_part(body: bytes, at: int) -> str | None:
    if not body.startswith(b"\r\n", at):
        return "is a form whose parts do not begin with CRLF; send well-formed parts"
    end = body.find(b"\r\n\r\n", at, at + LONGEST_HEAD)
    lines = body[at + 2 : end].split(b"\r\n") if end >= 0 else []
    named = [line for line in lines if line.lower().startswith(b"content-disposition")]
    found = _DISPOSITION.fullmatch(named[0]) if len(named) == 1 else None
    folded = any(line[:1] in (b" ", b"\t") or b"\n" in line for line in lines)
    if found is None or folded:
        return (
            "is a form with a part that lacks a plain Content-Disposition; send "
            'form-data; name="..."'
        )
    if _NO_FILE_IDS.fullmatch(found[1]):
        return "is a form that names a file by its id; send JSON instead"
    return None
