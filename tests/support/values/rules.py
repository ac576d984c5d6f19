"""Rules of providers as a stack has them that lets tests name their keys."""

from libs.common.providers.destinations import Destinations
from libs.common.providers.references import References
from libs.common.providers.rules import ProviderRules

UPSTREAM = "https://api.openai.com/v1"
# Keys of the variables KEY_* may go to any provider.
RULES = ProviderRules(References(UPSTREAM, ("KEY_*",)), Destinations(UPSTREAM))
