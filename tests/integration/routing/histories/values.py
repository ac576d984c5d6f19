"""What may happen: the values that histories draw from."""

from dataclasses import replace

from hypothesis import strategies as st

from libs.common.contracts.catalogue import Resource
from libs.common.routing.types import digest
from libs.common.upstream_answers.rate_limits import Told
from libs.common.upstream_answers.verdicts import Verdict

STREAM = "telemetry:events"
COOLDOWN_MS = 1_000
SILENT_MS = 5_000
GATEWAYS = st.sampled_from(["gw-a", "gw-b", "gw-c"])
MODELS = st.sampled_from([None, "gpt-5.5", 'odd "model"'])
POOLS = st.sampled_from([None, None, "p", "q", "nowhere", "@x", "@y"])
SESSIONS = st.sampled_from(["", "", digest("s1"), digest("s2")])
IDS = st.lists(
    st.sampled_from([digest(f"resp_{n}") for n in range(4)]), max_size=2, unique=True
).map(tuple)
TENANTS = st.sampled_from(["", "", "key:a", "team:b"])
# Bound ids and one more; most requests are not isolated.
KINDS = st.sampled_from(["", "", "nrn", "rrr", "nnn"])
# The resource of a WebSocket and the letters of its request; most are without one.
SOCKETS = st.one_of(
    st.just(("", "")),
    st.tuples(
        st.sampled_from(["openai-1", "openai-1", "openai-2", "openai-99"]),
        st.sampled_from(["", "d", "c", "s", "dc", "ds", "o", "do", "co"]),
    ),
    st.just(("", "o")),  # a target of a model alias that has others
)
DRAWS = st.integers(0, 2**31 - 1)
OK = Verdict(kind="ok")
FAULT = Verdict(kind="fault", cause="500")
REFUSED = Verdict(kind="refused", cause="401 invalid_api_key")
EXHAUSTED = Verdict(kind="exhausted", cause="429 insufficient_quota")
LIMITED = [
    Verdict(kind="limited", cause="429 rate limited", cooldown_ms=ms)
    for ms in (None, 10, 2_500)
]
LIMITED += [replace(limited, of_account=True) for limited in LIMITED]
VERDICTS = st.sampled_from(
    [OK] * 6 + [FAULT] * 4 + LIMITED * 2 + [Verdict(kind="neutral"), REFUSED, EXHAUSTED]
)
# Estimated tokens of a request; None: limits of accounts do not matter.
TOKENS = st.sampled_from([None, 0, 10, 400, 5_000])
# Of requests or of tokens: limit, remaining, ms to the reset. Some are unknown, and
# some resets too far away.
LIMIT = st.one_of(
    st.just((-1, -1, -1)),
    st.tuples(
        st.just(1_000),
        st.sampled_from([0, 1, 240, 260, 1_000]),
        st.sampled_from([1, 900, 20_000, 3_600_001]),
    ),
)
TOLD = st.one_of(
    st.just(""),
    st.builds(
        lambda age, requests, tokens: Told(*requests, *tokens).encoded(age),
        st.sampled_from([0, 0, 1, 1_000]),
        LIMIT,
        LIMIT,
    ),
)


def resource(
    number: int,
    weight: float,
    pool: str | None,
    account: str,
    credential: str,
    provider: str | None = None,
) -> Resource:
    return Resource(
        id=f"openai-{number}",
        name=f"openai-{number}",
        pool_id=pool,
        account_id=account,
        weight=weight,
        base_url="http://127.0.0.1:1/v1",
        credential=f"env:{credential}",
        provider_id=provider,
    )


# Most histories are without limits of requests in flight.
BOUNDS = st.sampled_from(
    [
        {},
        {},
        {"most_in_flight": 1},
        {"most_in_flight": 2, "queue_ms": 5_000},
        {"most_in_flight": 1, "queue_ms": 3_000, "bound_queue_ms": 3_000},
        {"queue_ms": 3_000, "bound_queue_ms": 20_000},
    ]
)
SHARES = st.sampled_from([("key-a", 1), ("key-a", 1), ("key-b", 1), ("key-c", 2.5)])
RESOURCES = 4
SMALL = st.lists(
    st.builds(
        resource,
        st.integers(1, RESOURCES),
        st.sampled_from([1, 1, 2, 0.5, 3]),
        st.sampled_from(["p", "p", "q", None]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["K", "K", "K2"]),
        st.sampled_from([None, "x", "x", "y"]),
    ),
    min_size=1,
    max_size=RESOURCES,
    unique_by=lambda r: r.id,
)
# More than the number of ranks that a choice looks at.
LARGE = st.builds(
    lambda n, accounts: [
        resource(i, 1, "p", accounts[i % 10], "K", "x" if i > 2 else None)
        for i in range(1, n + 1)
    ],
    st.integers(15, 20),
    # The names of the four last resources, in the order of ranks, end in 6 to 9.
    st.sampled_from(["ababababab", "aaaaaabbbb"]),
)
