"""Servers that are forked instead of started, on one machine that root runs.

``parent``   a process that has imported everything, and forks a child for each server
``imports``  what it imports
``enter``    how the child gets into a sandbox that stands, and becomes its person for good
``child``    what the child does to be a server like any other

The parent belongs to no person and knows no secret. What a server needs comes in a
file in memory that only its own child reads. Whoever asks (the hub's spawner) falls
back to starting the server as usual when anything of this fails.
"""

from __future__ import annotations

KERNELS_ARE_PREPARED = False
"""Whether this process was forked with the modules of kernels, and can fork the process that forks them."""
