"""What sends alerts, if anything does."""

from typing import Any

import pytest

from libs.common.contracts.events import Row
from libs.common.settings.services import IngestSettings
from services.ingest.alerts.webhook import deliveries

SET = {
    "PROXY_ALERT_WEBHOOK_URL": "https://hooks.example/x",
    "PROXY_ALERT_WEBHOOK_SECRET": "a secret of many characters",
}


async def no_sql(*_: Any, **__: Any) -> list[Row]:
    return []


@pytest.mark.parametrize(("environ", "count"), [({}, 0), (SET, 1)])
def test_alerts_are_sent_if_there_is_a_webhook(
    environ: dict[str, str], count: int
) -> None:
    settings = IngestSettings.read(environ)
    assert len(deliveries(settings, no_sql)) == count
