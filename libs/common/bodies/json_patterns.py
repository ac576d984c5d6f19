"""Regular expressions that find whole parts of a JSON text. Pure.

They are lax: a JSON parser then reads what they found, and refuses what is no JSON."""

import re
from collections import defaultdict

LEVELS = 12  # of nesting that a slice may hold

# Loops are atomic groups: possessive ones over groups do not step back in Pythons
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
# Elements, each with its comma.
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
# Where one element of a list may end and the next one begin, by the first character of
# the first: in a text a quotation mark would have a backslash.
ENDS = defaultdict(
    lambda: (b",",),
    {
        b"{": (b'},{"', b'}, {"', b"},"),
        b"[": (b"],",),
        b'"': (b'","', b'", "', b'",'),
    },
)
