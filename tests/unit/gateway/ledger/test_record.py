"""The gateway's events match the contract."""

from libs.common.contracts.events import RequestEvent
from services.gateway.ledger.record import Record


def test_the_record_has_the_fields_of_the_contract() -> None:
    assert set(Record.__struct_fields__) == set(RequestEvent.__struct_fields__)
