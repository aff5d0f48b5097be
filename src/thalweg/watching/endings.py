"""How a watch ends where nobody calls its ``close``: with the process, or as the copy in a forked child."""

import sys
import weakref
from typing import Any


class SilenceInChild:
    """Makes the copy of a watch in a forked child inert: it neither counts nor closes anything."""

    def __init__(self, owner: Any) -> None:
        self._owner = weakref.ref(owner)

    def __call__(self) -> None:
        """Called in the child, after the fork."""
        owner = self._owner()
        if owner is not None:
            owner.silence()


class CloseAtExit:
    """Closes a watch at the end of the process, if it is still there."""

    def __init__(self, owner: Any) -> None:
        self._owner = weakref.ref(owner)

    def __call__(self) -> None:
        """Called at the end of the process."""
        owner = self._owner()
        if owner is not None:
            last = getattr(sys, "last_value", None)
            owner.close("exit" if last is None else type(last).__name__)
