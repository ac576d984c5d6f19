"""The lease's part of a record."""

import msgspec

from services.gateway.ledger.lease_head import lease_head
from services.gateway.ledger.record import Record


def record() -> Record:
    return Record("r", 1, "POST", "/v1/responses", "gw")


def test_the_lease_is_an_open_object() -> None:
    assert lease_head(record()).startswith(b'{"id":"r"')
    assert not lease_head(record()).endswith(b"}")


def test_the_attempt_and_its_resource_are_left_out_and_kept() -> None:
    attempted = record()
    attempted.resource_id, attempted.account_id, attempted.attempts = "a", "b", 2
    assert lease_head(attempted) == lease_head(record())
    assert (attempted.resource_id, attempted.account_id) == ("a", "b")
    assert attempted.attempts == 2
    assert msgspec.json.decode(lease_head(attempted) + b"}")["id"] == "r"
