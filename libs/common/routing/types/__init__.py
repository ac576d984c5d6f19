"""Arguments and results of the routing functions, by subject."""

from libs.common.routing.types.attempts import *
from libs.common.routing.types.digests import *
from libs.common.routing.types.refusals import *
from libs.common.routing.types.replies import *
