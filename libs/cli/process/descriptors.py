"""File descriptors that survive from `up` through supervisord to its children.

supervisord closes its children's descriptors below FIRST_KEPT, so these are above.
Kept apart because `launch` must import next to nothing.
"""

FIRST_KEPT = 16
LOCK = 30  # the data directory's lock; supervisord's alone
OUTPUT = 31  # where `up` prints; supervisord's and the watch's
