"""Recognizes ids that upstreams create. Pure."""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

# Prefixes of ids that upstreams create and clients send back
# (docs/upstream-api.md#ids).
MINTED: Final = (
    "resp_", "conv_", "rs_", "msg_", "fc_", "fco_", "ctc_", "ws_", "fs_", "ci_", "ig_",
    "mcp_", "cmp_", "at_", "file-", "file_", "vs_", "cntr_", "cfile_", "batch_",
    "upload_",
)  # fmt: skip
# Codex generates its own item ids in the same form, with a UUID
# (docs/upstream-api.md#ids).
_OWN: Final = re.compile(
    r"[a-z]+_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
)
# Ids of newer kinds: a prefix and about 50 hexadecimal characters.
_ANY_KIND: Final = re.compile(r"[a-z]{2,16}_[0-9a-f]{40,64}")
# One look-up instead of a comparison with each of them.
_UNDERSCORED: Final = frozenset(each for each in MINTED if each.endswith("_"))
_OTHERS: Final = tuple(each for each in MINTED if not each.endswith("_"))
# The most frequent of them, as a search for the underscore takes longer.
_USUAL: Final = ("resp_", "msg_", "rs_", "fc_")
_PATH_WORDS = frozenset({"file_batches"})  # path segments that look like ids
MOST_SEGMENTS = 8
LONGEST_ID: Final = 512


def ids_in_path(path: bytes) -> list[str]:
    """Return the ids in a path: `/responses/resp_1/input_items` contains resp_1."""
    if path.find(b"/", 1) < 0:
        return []
    if b"%" in path:
        path = unquote_to_bytes(path)  # as the upstream decodes it
    segments = path.decode("latin-1").split("/", MOST_SEGMENTS)[:MOST_SEGMENTS]
    return [s for s in segments if is_minted(s) and s not in _PATH_WORDS]


def is_minted(value: object) -> bool:
    """Whether `value` is an id in the form that upstreams create."""
    if not isinstance(value, str):
        return False
    if not value.startswith(_USUAL):
        prefix = value[: value.find("_") + 1]
        if prefix not in _UNDERSCORED and not value.startswith(_OTHERS):
            return _ANY_KIND.fullmatch(value) is not None
    return len(value) <= LONGEST_ID and (
        value[-37:-36] != "_" or _OWN.fullmatch(value) is None
    )
