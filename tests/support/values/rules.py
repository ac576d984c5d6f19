"""Provider rules of a stack in which tests choose the keys."""

from libs.common.providers.destinations import Destinations
from libs.common.providers.references import References
from libs.common.providers.rules import ProviderRules

UPSTREAM = "https://api.openai.com/v1"
# Keys in variables KEY_* may be sent to any provider.
RULES = ProviderRules(References(UPSTREAM, ("KEY_*",)), Destinations(UPSTREAM))
