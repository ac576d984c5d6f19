"""Azure OpenAI's v1 API as a provider: https://NAME.openai.azure.com/openai/v1
(docs/upstream-api.md, Azure OpenAI). Pure."""

import re
from urllib.parse import urlsplit

AZURE = "azure"
PATH = "/openai/v1"
EXAMPLE = f"https://NAME.openai.azure.com{PATH}"
# Removed from accounts, which are used in Redis keys, JSON and SQL.
_ODD = re.compile(r"[^A-Za-z0-9._:@/-]")
_LONGEST = 128


def address_problem(base_url: str) -> str | None:
    """Why an address is not one of the v1 API; None if it may be. Any host is allowed,
    because gateways such as Azure API Management stand before it."""
    if urlsplit(base_url).path.endswith(PATH):
        return None
    return f"the address of an azure provider ends in {PATH}, such as {EXAMPLE}"


def resource_account(base_url: str) -> str | None:
    """The account of the keys of an Azure resource: its host and what precedes
    /openai/v1 in the path. None if nothing remains."""
    url = urlsplit(base_url)
    named = url.netloc.lower() + url.path.removesuffix(PATH)
    return _ODD.sub("", named)[:_LONGEST] or None
