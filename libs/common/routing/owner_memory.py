"""The owners of sessions and ids that a gateway knows. Pure."""

from collections import OrderedDict
from collections.abc import Mapping

from libs.common.routing.accounts import Kept, keep_owner
from libs.common.routing.policy import foreign_id
from libs.common.routing.types import Ask, ForeignId, Owner, UnknownIds


class OwnerMemory:
    """At most `most_owners` sessions, and as many ids."""

    def __init__(self, most_owners: int = 50_000) -> None:
        self.most_owners = most_owners
        self.sessions: Kept = OrderedDict()
        self.ids: Kept = OrderedDict()

    def remember(
        self,
        sessions: Mapping[str, Owner | None],
        ids: Mapping[str, Owner | None],
    ) -> None:
        """Add owners that are not known yet. None: SQL does not know the id."""
        for kept, told in ((self.sessions, sessions), (self.ids, ids)):
            for name, owner in told.items():
                if kept.get(name) is None:
                    self.keep(kept, name, owner)

    def keep(self, kept: Kept, name: str, owner: Owner | None) -> None:
        """Set an owner. An id stays with the tenant that minted it, because a later
        response may repeat ids that its client chose. A session has its last owner."""
        keep_owner(kept, name, owner, self.most_owners, stays=kept is self.ids)

    def check_ids(self, ask: Ask) -> None:
        """Raises `ForeignId` if the request may not name its ids, `UnknownIds` if SQL
        must be asked first."""
        asker = ask.asker
        ids = (*ask.bound, *asker.further)
        owners: Mapping[str, Owner | None] = self.ids
        if ask.resolved:
            owners = {id_: self.ids.get(id_) for id_ in ids}
        refused = foreign_id(asker, ids, owners)
        if refused is not None:
            reason, which = refused
            raise ForeignId(which, known=reason == "foreign_id")
        if asker.kinds and any(id_ not in owners for id_ in ids):
            raise UnknownIds(0)
