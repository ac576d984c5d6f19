"""Gauges that several services have. (The gateway keeps its own: see
`services/gateway/metrics.py`.)"""

from prometheus_client import Gauge

REDIS_UP = Gauge("proxy_redis_up", "1 while Redis answers.")
DEGRADED = Gauge("proxy_degraded", "1 while a part is impaired.", ["part"])
