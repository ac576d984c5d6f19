"""The gateway's events match the contract."""

from libs.common.contracts.events import RequestEvent
from services.gateway.ledger.record import Record, lease_head


def record() -> Record:
    return Record("r", 1, "POST", "/v1/responses", "gw")


def test_the_record_has_the_fields_of_the_contract() -> None:
    assert set(Record.__struct_fields__) == set(RequestEvent.__struct_fields__)


def test_the_lease_is_an_open_object() -> None:
    assert lease_head(record()).startswith(b'{"id":"r"')
    assert not lease_head(record()).endswith(b"}")
