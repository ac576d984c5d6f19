"""Rules of providers as a stack has them that lets tests name their keys."""

from libs.common.destinations import Destinations
from libs.common.provider_rules import ProviderRules
from libs.common.references import References

UPSTREAM = "https://api.openai.com/v1"
# Keys of the variables KEY_* may go to any provider.
RULES = ProviderRules(References(UPSTREAM, ("KEY_*",)), Destinations(UPSTREAM))
