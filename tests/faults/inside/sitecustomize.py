"""Counts the greenlets of a role when a test asks for it; on PYTHONPATH of the soak's stack only.

Python runs this at every start of an interpreter, before any patch: it may import nothing that
the patch has to reach. The signal is one that nobody else uses.
"""

import gc
import os
import signal
import sys


def _count(number, frame):
    greenlet = sys.modules.get("greenlet")
    kind = greenlet.greenlet if greenlet else ()
    alive = sum(isinstance(one, kind) and not one.dead for one in gc.get_objects())
    path = os.path.join(os.environ["TIDEGATE_CENSUS"], str(os.getpid()))
    with open(path + ".new", "w") as file:
        file.write(str(alive))
    os.replace(path + ".new", path)


# The host takes up its environment later, so the variable may not be here yet.
signal.signal(signal.SIGRTMIN + 5, _count)
