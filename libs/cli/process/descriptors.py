"""File descriptors that pass from `up` through supervisord to its children.

supervisord closes its children's descriptors below FIRST_KEPT, so these are above."""

FIRST_KEPT = 16
LOCK = 30  # the data directory's lock, held by supervisord only
OUTPUT = 31  # standard output of `up`, for supervisord and the readiness listener
LISTENER = "watch"  # the readiness listener's name under supervisord
