"""What services share; never imports a service."""

from libs.common.runtime.compiled import refuse_stale

refuse_stale()
