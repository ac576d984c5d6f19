"""Ids that upstreams mint. Pure."""

import re
from urllib.parse import unquote_to_bytes

# Ids that upstreams mint (responses-api.md section 6), and clients send back.
MINTED = ("resp_", "conv_", "rs_", "msg_", "fc_", "fco_", "ctc_", "ws_", "fs_", "ci_",
          "ig_", "mcp_", "cmp_", "at_", "file-", "file_", "vs_", "cntr_", "cfile_",
          "batch_", "upload_")  # fmt: skip
# Codex makes up ids of its own in the same form, with a UUID (section 2.2).
_OWN = re.compile(
    r"[a-z]+_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
)
# Of kinds that came later: upstreams write some 50 hex characters behind the prefix.
_ANY_KIND = re.compile(r"[a-z]{2,16}_[0-9a-f]{40,64}")
_PATH_WORDS = frozenset({"file_batches"})  # look like ids
MOST_SEGMENTS = 8
LONGEST_ID = 512


def ids_in_path(path: bytes) -> list[str]:
    """`/responses/resp_1/input_items` names resp_1."""
    if path.find(b"/", 1) < 0:
        return []
    if b"%" in path:
        path = unquote_to_bytes(path)  # as the upstream reads it
    segments = path.decode("latin-1").split("/", MOST_SEGMENTS)[:MOST_SEGMENTS]
    return [s for s in segments if is_minted(s) and s not in _PATH_WORDS]


def is_minted(value: object) -> bool:
    """Is this an id as upstreams make them, and not a client's own?"""
    if not isinstance(value, str):
        return False
    if not value.startswith(MINTED):
        return _ANY_KIND.fullmatch(value) is not None
    return len(value) <= LONGEST_ID and (
        value[-37:-36] != "_" or _OWN.fullmatch(value) is None
    )
