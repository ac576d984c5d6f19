"""Prices as they are stored."""

from datetime import date

from services.router.admin.schemas.prices import PriceAsk, PricesAsk


def test_a_price_without_a_tier_and_a_day() -> None:
    stored = PriceAsk(input=1, cached_input=0, output=2).stored()
    assert (stored["service_tier"], stored["valid_from"]) == (
        "",
        "1970-01-01T00:00:00.000Z",
    )
    day = date(2026, 5, 1)
    ask = PriceAsk(
        input=1, cached_input=0, output=2, service_tier="flex", valid_from=day
    )
    stored = ask.stored()
    assert (stored["service_tier"], stored["valid_from"]) == (
        "flex", "2026-05-01T00:00:00.000Z",
    )  # fmt: skip


def test_of_two_prices_of_a_day_the_last_counts() -> None:
    first, last = (PriceAsk(input=n, cached_input=0, output=0) for n in (1, 2))
    assert PricesAsk(prices=(first, last)).stored() == [last.stored()]
