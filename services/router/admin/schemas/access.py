"""Admin tokens with names, and the audit log."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from libs.common.admin_token import Role, checked_name
from libs.common.contracts.catalogue import Frozen
from services.router.admin.schemas.pages import PageFilter, Parameter, page_of


class TokenAsk(Frozen):
    """A new admin token. `role`: a viewer may only read, and explain where a request
    would go."""

    name: Annotated[str, AfterValidator(checked_name)]
    role: Role = "viewer"


class TokenRow(Frozen):
    """A row of `admin_tokens`, without the token."""

    name: str
    role: str
    created_at: str


class MintedToken(TokenRow):
    """A new admin token, which no other response contains."""

    token: str


class TokensList(Frozen):
    """All admin tokens by name, except the first one, `default`."""

    data: tuple[TokenRow, ...]
    next_cursor: None = None


class TokenHolder(Frozen):
    """Whose admin token a request has. `(open)`: none is asked for."""

    name: str
    role: str


class AuditFilter(PageFilter):
    """Which changes."""

    actor: Parameter = Field(None, description="Only changes with this admin token.")
    object_type: Parameter = Field(
        None,
        description="Only of `proxy_key`, `team`, `provider`, `model` or "
        "`admin_token`.",
    )
    object_id: Parameter = Field(None, description="Only changes of this object.")


class Difference(Frozen):
    """A field before and after a change; null: it had no value. `***`: a secret."""

    before: Any
    after: Any


class AuditRow(Frozen):
    """A row of `audit_log`: one change through the admin API."""

    id: str
    created_at: str
    actor: str  # name of the admin token; (open) or (command line) without one
    address: str | None  # the client's, as the gateway or the router sees it
    peer: str | None  # who connected to the router
    action: str  # create, change, revoke, delete
    object_type: str
    object_id: str
    changes: dict[str, Difference]  # by SQL column name


AuditPage = page_of("AuditPage", AuditRow)
