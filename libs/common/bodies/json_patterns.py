"""Regular expressions that find complete parts of a JSON text. Pure.

They are lenient: a JSON parser then reads the match, and rejects invalid JSON."""

import re
from collections import defaultdict

LEVELS = 12  # nesting that a match may contain

# Loops are atomic groups: possessive quantifiers over groups are broken in Python
# before 3.11.5 (gh-106052).
_STRING = rb'"(?>(?:[^"\\]++|\\.)*)"'
_FLAT = rb'[^"{}\[\],]++|' + _STRING


def _nested(levels: int) -> bytes:
    found = b""
    for _ in range(levels):
        inner = rb",|" + _FLAT + (b"|" + found if found else b"")
        found = rb"[{\[](?>(?:" + inner + rb")*)[}\]]"
    return found


_ELEMENT = rb"(?>(?:" + _FLAT + rb"|" + _nested(LEVELS) + rb")+)"
# Complete elements, each followed by a comma.
RUN = re.compile(rb"(?>(?:" + _ELEMENT + rb",)*)", re.DOTALL)
LAST = re.compile(_ELEMENT + rb"(?=[}\]])", re.DOTALL)
MEMBER = re.compile(
    rb"\s*+(" + _STRING + rb")\s*+:\s*+(" + _ELEMENT + rb"),?+", re.DOTALL
)
KEY = re.compile(_STRING, re.DOTALL)
SPACE = re.compile(rb"[ \t\r\n]*+")
SCALAR = re.compile(rb'[^ \t\r\n"{}\[\],:]++')
TEXT = re.compile(rb'(?>(?:[^"\\]++|\\u....|\\[^u])*)', re.DOTALL)

FIRST = re.compile(rb"[ \t\r\n]*+([^ \t\r\n])")
# Marks between two elements of a list, by the first character of the list. Inside a
# string, the quotation mark would follow a backslash.
ENDS = defaultdict(
    lambda: (b",",),
    {
        b"{": (b'},{"', b'}, {"', b"},"),
        b"[": (b"],",),
        b'"': (b'","', b'", "', b'",'),
    },
)
