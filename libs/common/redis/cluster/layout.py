"""Which node of a Redis Cluster has the slot of all our keys, by what nodes say.
No IO."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.crc import key_slot

from libs.common.redis.keys import Keys
from libs.common.redis.packing import Form

KNOWN_AT_MOST = 1000  # nodes

Address = tuple[str, int]


def slot_of(keys: Keys) -> int:
    """The slot of all keys of a stack."""
    slot: int = key_slot(keys.tag.encode())
    return slot


@dataclass(frozen=True, slots=True)
class Layout:
    """`owner`: the primary that has the slot, if any. `nodes`: all that have slots, and
    their replicas. `replicas`: those of the owner."""

    owner: Address | None
    nodes: tuple[Address, ...]
    replicas: tuple[Address, ...] = ()


def layout_of(ranges: Iterable[Sequence[Any]], asked: Address, slot: int) -> Layout:
    """From the reply to CLUSTER SLOTS. `asked`: the node that replied."""
    owner: Address | None = None
    nodes: list[Address] = []
    replicas: list[Address] = []
    for first, last, *members in ranges:
        places = [_place(member[0], member[1], asked) for member in members]
        nodes += places
        if places and int(first) <= slot <= int(last):
            owner, *replicas = places
    return Layout(owner, tuple(dict.fromkeys(nodes)), tuple(replicas))


def primaries_of(
    shards: Iterable[Sequence[Any]], asked: Address, *, tls: bool
) -> list[Address]:
    """The primaries in the reply to CLUSTER SHARDS, those without slots included."""
    ports = (b"tls-port", b"port") if tls else (b"port", b"tls-port")
    found = []
    for shard in shards:
        for node in (_fields(each) for each in _fields(shard)[b"nodes"]):
            if (node[b"role"], node[b"health"]) == (b"master", b"online"):
                host = node.get(b"endpoint") or node.get(b"ip")
                port = node.get(ports[0]) or node[ports[1]]
                found.append(_place(host, port, asked))
    return found


def is_up(info: bytes) -> bool:
    """Whether a node, by its reply to CLUSTER INFO, can be believed. One that is cut
    off from the majority says `fail`, and knows only how it was before."""
    return b"cluster_state:ok" in info


def target_of(redirect: str, asked: Address) -> Address:
    """The node that a MOVED or ASK error names."""
    host, _, port = redirect.split()[2].rpartition(":")
    return _place(host.encode(), int(port), asked)


_forms: dict[tuple[Form, str], Form] = {}  # with a guard; few


def _form_with(form: Form, guard: str) -> Form:
    found = _forms.get((form, guard))
    if found is None:
        found = Form(form.join, lambda key: guarded(form.pattern(key), guard))
        _forms[form, guard] = found
    return found


def guarded(command: tuple[Any, ...], guard: str) -> tuple[Any, ...]:
    """The command (maybe a form, `packing.py`) with `guard` among its keys if it calls
    a function. That key never exists.

    While a slot is moved key by key, the source runs a function whose declared keys it
    still has, and the function fails at the first other key, maybe after it has
    written. With one more declared key that is missing, the source refuses the call
    (TRYAGAIN) before the function begins, and so does the target."""
    name = command[0]
    if type(name) is Form:
        return _form_with(name, guard), *command[1:]
    if name != "FCALL":
        return command
    end = 3 + int(command[2])
    return *command[:2], end - 2, *command[3:end], guard, *command[end:]


class Nodes:
    """The known nodes, in the order in which they are asked; and where a redirection
    said that the slot is."""

    def __init__(self, seeds: Iterable[Address]) -> None:
        self._seeds = tuple(seeds)
        self._known: list[Address] = list(self._seeds)
        self._told: Address | None = None
        self.owner: Address | None = None  # the last known one

    @property
    def known(self) -> tuple[Address, ...]:
        return tuple(self._known)

    def told(self, address: Address) -> None:
        """A node redirects to this one."""
        self._told = self.owner = address

    def take_told(self) -> Address | None:
        """What a node said, once: it may be wrong."""
        told, self._told = self._told, None
        return told

    def silent(self, address: Address) -> None:
        """This one does not answer or cannot be believed: it is asked last."""
        if address in self._known:
            self._known.remove(address)
            self._known.append(address)

    def learned(self, layout: Layout) -> None:
        named = {*layout.nodes, *self._seeds}
        kept = [address for address in self._known if address in named]
        new = [address for address in layout.nodes if address not in kept]
        self._known = [*kept, *new][:KNOWN_AT_MOST]
        self.owner = layout.owner


def _place(host: Any, port: Any, asked: Address) -> Address:
    """A node that does not know its own address has none: then it is the one that was
    asked, or has the same host."""
    name = host.decode() if isinstance(host, bytes) else host or ""
    return (asked[0] if name in ("", "?") else name), int(port)


def _fields(pairs: Sequence[Any]) -> dict[bytes, Any]:
    return dict(zip(pairs[::2], pairs[1::2], strict=True))
