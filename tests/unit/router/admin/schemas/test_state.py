"""The models of the state and the ledger."""

from services.router.admin.schemas.state import AdminState, Ledger, WholeLedger


def test_the_whole_ledger_is_the_ledger_and_its_gateways() -> None:
    more = set(WholeLedger.model_fields) - set(Ledger.model_fields)
    assert more == {"queue_depth", "gateways", "timestamp"}


def test_the_state_has_what_the_dashboard_shows() -> None:
    shown = {"resources", "decisions", "ledger", "degraded", "timestamp"}
    assert shown <= set(AdminState.model_fields)
