"""Addresses of Azure's v1 API, and the accounts of their keys."""

import pytest

from libs.common.providers.azure import address_problem, resource_account


@pytest.mark.parametrize(
    ("base_url", "account"),
    [
        ("https://name.openai.azure.com/openai/v1", "name.openai.azure.com"),
        ("https://NAME.services.ai.azure.com/openai/v1", "name.services.ai.azure.com"),
        (
            "https://n.services.ai.azure.com/api/projects/P/openai/v1",
            "n.services.ai.azure.com/api/projects/P",
        ),
        ("http://127.0.0.1:81/openai/v1", "127.0.0.1:81"),
        ("http://[fd00::1]:81/{x}/openai/v1", "fd00::1:81/x"),
    ],
)
def test_an_address_names_its_resource(base_url: str, account: str) -> None:
    assert address_problem(base_url) is None
    assert resource_account(base_url) == account


def test_an_account_has_a_bounded_name() -> None:
    account = resource_account("https://" + "a" * 500 + "/openai/v1")
    assert account == "a" * 128


@pytest.mark.parametrize(
    "path", ["", "/v1", "/openai", "/openai/v1/responses", "/openai/deployments/gpt"]
)
def test_other_addresses_are_refused(path: str) -> None:
    said = address_problem(f"https://name.openai.azure.com{path}")
    assert said is not None
    assert "https://NAME.openai.azure.com/openai/v1" in said
