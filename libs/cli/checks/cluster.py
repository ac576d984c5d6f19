"""Checks of a Redis Cluster: its nodes, who has our slot, and the functions."""

from collections.abc import Iterator

from redis.exceptions import RedisError, ResponseError

from libs.cli.checks.finding import Finding, Level
from libs.cli.plan import without_password
from libs.common.errors import SettingError
from libs.common.redis.cluster.blocking import BlockingFinder
from libs.common.redis.cluster.layout import Address, Layout
from libs.common.redis.factory import blocking_finder, cause_of
from libs.common.redis.keys import DEFAULT, Keys

VARIABLE = "PROXY_REDIS_URL"
NO_CLUSTER = "cluster support disabled"  # in the error of a server that is no node
ANNOUNCED = "Check cluster-announce-ip, and that this machine can reach the address"
SHOW_NODES = "`redis-cli CLUSTER NODES` at a node shows what fails"


def cluster(url: str, patience_s: float, keys: Keys = DEFAULT) -> Iterator[Finding]:
    """The findings about each node of the URL, and then about the cluster."""
    finder = blocking_finder(url, patience_s, keys)
    found: tuple[Layout, Address] | None = None
    for address in finder.nodes.known:
        try:
            layout = finder.layout(address)
        except (RedisError, OSError, UnicodeError) as error:
            yield _unusable(url, address, error)
            continue
        yield Finding(f"redis node {_place(address)}", "answers; cluster_state is ok")
        found = found or (layout, address)
    if found is not None:
        yield from _whole(finder, keys, *found)


def _unusable(url: str, address: Address, error: Exception) -> Finding:
    cause = cause_of(error)
    if isinstance(error, ResponseError) and NO_CLUSTER in str(error):
        return Finding.refused(
            SettingError(
                VARIABLE,
                f"names redis {without_password(url)}, but {_place(address)} is no "
                "node of a cluster",
                "Use redis://HOST:PORT/0 for a single server",
            )
        )
    return Finding.failed(
        f"redis node {_place(address)}",
        f"cannot be used ({cause})",
        f"Start it, or remove it from {VARIABLE}. {SHOW_NODES}",
    )


def _whole(
    finder: BlockingFinder, keys: Keys, layout: Layout, asked: Address
) -> Iterator[Finding]:
    """The findings about the cluster, by what the node `asked` says."""
    subject = "redis cluster"
    slot = f"slot {finder.slot} of {keys.tag}, in which all keys are"
    if layout.owner is None:
        yield Finding.failed(subject, f"no node has {slot}", SHOW_NODES)
        return
    yield _owner(layout, f"{slot}, is at {_place(layout.owner)}")
    primaries = finder.primaries(asked)
    without = []
    for address in primaries:
        try:
            (listed,) = finder.ask(address, keys.list_library)
        except (RedisError, OSError) as error:
            yield Finding.failed(
                f"redis node {_place(address)}",
                f"is announced, but cannot be used ({cause_of(error)})",
                ANNOUNCED,
            )
            continue
        if not listed:
            without.append(_place(address))
    if len(without) == len(primaries):
        state = "no primary has the functions yet; the router loads them"
        yield Finding(subject, state)
    elif without:
        state = (
            f"{len(without)} of {len(primaries)} primaries have no functions "
            f"({', '.join(without)})"
        )
        fix = "The router loads them within a second: check that it runs"
        yield Finding(subject, state, fix, Level.WARNING)
    else:
        yield Finding(subject, f"all {len(primaries)} primaries have the functions")


def _owner(layout: Layout, state: str) -> Finding:
    if layout.replicas:
        count = len(layout.replicas)
        return Finding(
            "redis cluster", f"{state}, with {count} replica{'s' * (count > 1)}"
        )
    return Finding(
        "redis cluster",
        f"{state}, without a replica",
        "Give it one: until a lost node is back, each gateway routes by itself",
        Level.WARNING,
    )


def _place(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
