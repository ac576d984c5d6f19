"""Masks an upstream key that a response repeats. Pure.

Upstreams, and proxies in front of them, quote request headers in error messages,
response headers and HTML pages. Clients must not see the key there."""

import re
from functools import cached_property
from typing import Final

MARK = "[upstream key]"
# A shorter key is a placeholder (EMPTY, none), and may be a word of the response.
SHORTEST: Final = 8
# The minimum length in successful responses, whose text may contain a placeholder
# such as no-key-required.
SHORTEST_IN_SUCCESS = 20
# Longer texts are searched for the plain key only, which bounds the time (5 ms).
LONGEST_ESCAPED = 32_768
# Letters, digits and signs of keys, those that are rarest in JSON first.
_RAREST_FIRST: Final = (
    b"QXZJKVYWHUGFBPNMLDOSRETCIAqzjxkvwyfbghm_.-97865432udclpirnsoate10"
)
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
    """A key and its spellings in a response: plain, or escaped for JSON, URLs or
    HTML."""

    def __init__(self, text: str) -> None:
        self.text = text
        streamed = text if len(text) >= SHORTEST_IN_SUCCESS else ""
        # Searched for in each chunk of a successful response, unless empty.
        self.streamed = streamed.encode("ascii")
        self.streamed_text = streamed
        self.bytes = frozenset(self.streamed)
        # One of these. It takes a fifth of a search to see that a chunk lacks it.
        self.rare = _rarest(self.streamed)
        # As long as the key, so that content lengths stay valid.
        self.mask_text = MARK.ljust(len(text), "*")[: len(text)]
        self.mask = self.mask_text.encode("ascii")

    def __repr__(self) -> str:
        return "SentKey()"

    def shown_in(self, text: str) -> bool:
        """Whether `text` contains the key in any spelling."""
        return self.hidden(text) != text

    def hidden(self, text: str) -> str:
        """Return `text` with all spellings of the key masked."""
        if len(self.text) < SHORTEST:
            return text
        text = text.replace(self.text, MARK)
        if len(text) > LONGEST_ESCAPED:
            return text
        plain = _ESCAPED.sub(_unescape, text)
        if self.text not in plain:
            return text
        text = self._spellings.sub(MARK, text)
        # An ambiguous spelling may remain: return the unescaped text, masked.
        ambiguous = self.text in _ESCAPED.sub(_unescape, text)
        return plain.replace(self.text, MARK) if ambiguous else text

    def hidden_bytes(self, data: bytes) -> bytes:
        """Mask a body or a header of any ASCII-compatible charset: keys are ASCII."""
        return self.hidden(data.decode("latin-1")).encode("latin-1")

    def masked(self, data: bytes) -> bytes:
        """Mask the plain key in a chunk of a successful response; keeps its length."""
        return data.replace(self.streamed, self.mask) if self.streamed else data

    def masked_frame(self, frame: str | bytes) -> str | bytes:
        """Mask the plain key in a WebSocket message; keeps its length."""
        if isinstance(frame, bytes):
            return self.masked(frame)
        text = self.streamed_text
        return frame.replace(text, self.mask_text) if text else frame

    def begun(self, data: bytes) -> int:
        """The number of bytes at the end of `data` that may be the start of the key."""
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
        return re.compile("".join(map(_any_spelling, self.text)))


def _rarest(key: bytes) -> int:
    for byte in _RAREST_FIRST:
        if byte in key:
            return byte
    return key[0] if key else 0


NO_KEY: Final = SentKey("")


def _unescape(found: "re.Match[str]") -> str:
    json, escaped, url, decimal, hexadecimal, name = found.groups()
    if decimal is not None:
        return chr(int(decimal))
    if name is not None:
        return _NAMED[name]
    code = json or url or hexadecimal
    return str(escaped) if code is None else chr(int(code, 16))


def _any_spelling(character: str) -> str:
    """A pattern for all spellings of one character."""
    code = ord(character)
    hexadecimal = "".join(
        f"[{digit}{digit.upper()}]" if digit.isalpha() else digit
        for digit in f"{code:02x}"
    )
    spellings = [
        re.escape(character),
        rf"\\{{1,8}}u00{hexadecimal}",
        f"%{hexadecimal}",
        f"%25{hexadecimal}",
        f"&#0{{0,6}}{code};",
        f"&#[xX]0{{0,6}}{hexadecimal};",
    ]
    if character in "/\\":
        spellings.insert(0, rf"\\{{1,8}}{re.escape(character)}")
    spellings += [f"&{name};" for name, meant in _NAMED.items() if meant == character]
    return f"(?:{'|'.join(spellings)})"
