"""A gauge of the services that use the database. It is apart because a registered gauge
is 0 until it is set: the health service would report the database as down."""

from prometheus_client import Gauge

SQL_UP = Gauge("proxy_sql_up", "1 while the database answers.")
