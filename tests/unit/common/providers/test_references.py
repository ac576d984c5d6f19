"""Which variables may hold provider keys, and where those keys may be sent."""

import pytest

from libs.common.errors import SettingError
from libs.common.providers.references import References, may_hold_keys
from libs.common.settings.services import GatewaySettings


@pytest.mark.parametrize(
    ("reference", "may"),
    [
        ("env:ACME_KEY", True),
        ("env:ACME_KEY#2", True),
        ("env:OPENAI_API_KEY", True),
        ("ACME_KEY", False),
        ("env:", False),
        ("env:A B", False),
        ("env:ACME#0", False),
        ("sealed:T", False),
        ("env:PROXY_ADMIN_TOKEN", False),
        ("env:DATABASE_URL", False),
        ("env:SERVICE_DATABASE_URL", False),
        ("env:MORPH_API_KEY", False),
        ("env:HTTPS_PROXY", False),
        ("env:https_proxy", False),
        ("env:CELERY_REDIS_URL", False),
    ],
)
def test_which_variables_may_hold_keys(reference: str, may: bool) -> None:
    assert may_hold_keys(reference) is may


@pytest.mark.parametrize(
    "value", ["*", "?*", "OPENAI_*", "OPENAI_API_KEY", "A B", "env:A", "A-B"]
)
def test_globs_that_make_no_sense_stop_the_start(value: str) -> None:
    with pytest.raises(SettingError, match=r"^PROXY_CREDENTIAL_VARIABLES: contains "):
        GatewaySettings.read({"PROXY_CREDENTIAL_VARIABLES": value})


@pytest.mark.parametrize(
    ("upstream", "base_url", "same"),
    [
        ("https://api.test/v1", "https://api.test/v1", True),
        ("https://api.test/v1", "https://API.test.:443/v1/", True),
        ("https://api.test/v1", "https://api.test/v1/a/b", True),
        ("https://api.test/a%20b", "https://api.test/a%20b", True),
        ("https://api.test", "https://api.test/v1", True),
        ("https://api.test/v1", "https://api.test", False),
        ("https://api.test/v1", "https://api.test/v1x", False),
        ("https://api.test/v1", "https://api.test/v1/./x", False),
        ("https://api.test/v1", "https://api.test/v1//x", False),
        ("https://api.test/v1", "https://api.test/v1/..;/x", False),
        ("https://api.test/v1", "https://api.test/v1/x\\..", False),
        ("https://api.test/v1", "https://api.test:8443/v1", False),
        ("https://api.test/v1", "http://api.test/v1", False),
        ("https://api.test/v1", "http://api.test:443/v1", False),
        ("https://api.test/v1", "https://api.test:x/v1", False),
    ],
)
def test_what_is_the_configured_upstream(
    upstream: str, base_url: str, same: bool
) -> None:
    assert References(upstream).is_upstream(base_url) is same


def test_a_refusal_says_what_to_do() -> None:
    rules = References("https://api.test/v1", ("PROVIDER_*", "LAB_KEY"))
    said = rules.refusal("env:ACME", "https://acme.test")
    assert (
        said == "ACME matches no glob in PROXY_CREDENTIAL_VARIABLES "
        "(PROVIDER_*,LAB_KEY)"
    )
    said = rules.refusal("env:OPENAI_API_KEY", "https://acme.test")
    assert said is not None
    assert "PROXY_UPSTREAM_BASE_URL" in said
    assert rules.refusal("env:LAB_KEY#2", "https://acme.test") is None
    assert rules.refusal("env:lab_key", "https://acme.test") is not None
