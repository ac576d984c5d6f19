"""A key that an upstream shows in its answer, hidden. Pure.

Upstreams and what stands before them quote what they were sent: in error messages,
in headers, in pages of their own. Nobody but the upstream may read it there."""

import re
from functools import cached_property

MARK = "[upstream key]"
# What is shorter is a placeholder (EMPTY, none) and may be a word of the answer.
SHORTEST = 8
# The same in answers that succeed: there a placeholder such as no-key-required may
# be a word of the text.
SHORTEST_IN_SUCCESS = 20
# Longer texts are searched for the plain key only: it bounds the time (5 ms).
LONGEST_ESCAPED = 32_768
_ESCAPED = re.compile(
    r"\\{1,8}u00([2-7][0-9A-Fa-f])"  # several backslashes: JSON within JSON
    r"|\\{1,8}([/\\])"
    r"|%(?:25)?([2-7][0-9A-Fa-f])"
    r"|&#0{0,6}([0-9]{2,3});"
    r"|&#[xX]0{0,6}([2-7][0-9A-Fa-f]);"
    r"|&(amp|lt|gt|quot|apos);"
)
_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}


class SentKey:
    """A key as an answer may show it: plain, or escaped as JSON, URLs and HTML are."""

    def __init__(self, text: str) -> None:
        self.text = text
        streamed = text if len(text) >= SHORTEST_IN_SUCCESS else ""
        # To be looked for in each piece of a successful answer; empty: in none.
        self.streamed = streamed.encode("ascii")
        self.streamed_text = streamed
        self.bytes = frozenset(self.streamed)
        # As long as the key, so that lengths stay right.
        self.mask_text = MARK.ljust(len(text), "*")[: len(text)]
        self.mask = self.mask_text.encode("ascii")

    def __repr__(self) -> str:
        return "SentKey()"

    def shown_in(self, text: str) -> bool:
        """Is it there, in any spelling?"""
        return self.hidden(text) != text

    def hidden(self, text: str) -> str:
        """The same text without the key."""
        if len(self.text) < SHORTEST:
            return text
        text = text.replace(self.text, MARK)
        if len(text) > LONGEST_ESCAPED:
            return text
        plain = _ESCAPED.sub(_decoded, text)
        if self.text not in plain:
            return text
        text = self._spellings.sub(MARK, text)
        # Of a spelling that can be read in two ways nothing is kept.
        ambiguous = self.text in _ESCAPED.sub(_decoded, text)
        return plain.replace(self.text, MARK) if ambiguous else text

    def hidden_bytes(self, data: bytes) -> bytes:
        """The same of a body or a header, whatever its charset: keys are ASCII."""
        return self.hidden(data.decode("latin-1")).encode("latin-1")

    def masked(self, data: bytes) -> bytes:
        """A piece of a successful answer without the plain key, as long as it was."""
        return data.replace(self.streamed, self.mask) if self.streamed else data

    def masked_frame(self, frame: str | bytes) -> str | bytes:
        """The same of a socket's message."""
        if isinstance(frame, bytes):
            return self.masked(frame)
        text = self.streamed_text
        return frame.replace(text, self.mask_text) if text else frame

    def begun(self, data: bytes) -> int:
        """How many bytes at the end of `data` may be the key's first ones."""
        key = self.streamed
        if not key:
            return 0
        end = data[-(len(key) - 1) :]
        start = end.find(key[:1])
        while start >= 0 and not key.startswith(end[start:]):
            start = end.find(key[:1], start + 1)
        return len(end) - start if start >= 0 else 0

    @cached_property
    def _spellings(self) -> "re.Pattern[str]":
        return re.compile("".join(map(_spelled, self.text)))


NO_KEY = SentKey("")


def _decoded(found: "re.Match[str]") -> str:
    json, escaped, url, decimal, hexadecimal, name = found.groups()
    if decimal is not None:
        return chr(int(decimal))
    if name is not None:
        return _NAMED[name]
    code = json or url or hexadecimal
    return str(escaped) if code is None else chr(int(code, 16))


def _spelled(character: str) -> str:
    """A pattern for one character, in any of its spellings."""
    code = ord(character)
    hexadecimal = "".join(
        f"[{digit}{digit.upper()}]" if digit.isalpha() else digit
        for digit in f"{code:02x}"
    )
    ways = [
        re.escape(character),
        rf"\\{{1,8}}u00{hexadecimal}",
        f"%{hexadecimal}",
        f"%25{hexadecimal}",
        f"&#0{{0,6}}{code};",
        f"&#[xX]0{{0,6}}{hexadecimal};",
    ]
    if character in "/\\":
        ways.insert(0, rf"\\{{1,8}}{re.escape(character)}")
    ways += [f"&{name};" for name, meant in _NAMED.items() if meant == character]
    return f"(?:{'|'.join(ways)})"
