"""How long tests wait for what must come: far longer than it takes, on a busy and slow machine too.

These are bounds of despair, reached where something is broken. No test is about them.
"""

WAIT_S = 300.0
"""For an answer, a thread, or a process that is there already."""
START_S = 900.0
"""For the application, a cluster, or a part of them to come up: on one core beside busy neighbours
Ray alone takes minutes, and kernels may have to be compiled."""
STOP_S = 300.0
"""For it to end in order."""
