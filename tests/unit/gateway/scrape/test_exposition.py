"""The text for Prometheus, as the client library reads it."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from services.gateway.metrics import Family
from services.gateway.scrape.exposition import exposition
from tests.support.clients.scrapes import Scraped

FAMILIES = {
    family.name: family
    for family in (
        Family("requests_total", "counter", 'Help \\ with\na "break".', ("a", "b")),
        Family("seconds", "histogram", "Help.", ("a",), (0.5, 1.0)),
        Family("mean", "summary", "Help."),
        Family("open", "gauge", "Help."),
        Family("unused", "gauge", "Help."),
    )
}


def test_each_kind_is_written_as_it_is_read() -> None:
    text = exposition(
        FAMILIES,
        {
            "requests_total": [(("x", "y"), [3])],
            "seconds": [(("x",), [1, 2, 4, 9.5])],
            "mean": [((), [2, 0.25])],
            "open": [((), [True])],
        },
    ).decode()
    found = Scraped(text)
    assert found.kinds == {
        "requests": "counter",
        "seconds": "histogram",
        "mean": "summary",
        "open": "gauge",
        "unused": "gauge",
    }
    assert found.value("requests_total", a="x", b="y") == 3
    buckets = {
        dict(labels)["le"]: value
        for (name, labels), value in found.samples.items()
        if name == "seconds_bucket"
    }
    assert buckets == {"0.5": 1, "1.0": 3, "+Inf": 7}
    assert (found.value("seconds_sum"), found.value("seconds_count")) == (9.5, 7)
    assert (found.value("mean_sum"), found.value("mean_count")) == (0.25, 2)
    assert found.value("open") == 1


@given(st.text(st.characters(codec="utf-8")), st.floats(0, 1e15))
def test_any_label_value_is_read_as_it_was(label: str, value: float) -> None:
    text = exposition(FAMILIES, {"requests_total": [((label, ""), [value])]}).decode()
    families = text_string_to_metric_families(text)
    (sample,) = [sample for family in families for sample in family.samples]
    assert (sample.labels["a"], sample.value) == (label, value)
