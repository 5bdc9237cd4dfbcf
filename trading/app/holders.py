"""Which applications of a cluster hold an actor that they have in common.

Whoever made it may end before others that hold it, so it ends with the last of them: when that lets
go of it, or, where all of them were killed, when none has been heard of for a while.
"""

import threading
import time
from collections.abc import Callable

HELD_EVERY_S = 2.0
"""So often an application says that it holds an actor."""
FORGOTTEN_S = 120.0
"""An application that has not been heard of for so long is taken for dead."""


class Holders:
    """Those who hold an actor, by names of their own; lives in the actor's process.

    Parameters
    ----------
    end
        Ends the actor for good; called when nobody has been heard of for `forgotten_s`.
    forgotten_s
        So long.
    """

    def __init__(self, end: Callable[[], None], forgotten_s: float = FORGOTTEN_S) -> None:
        self._end = end
        self._forgotten_s = forgotten_s
        self._heard: dict[str, float] = {}
        self._last_s = time.monotonic()
        self._is_ending = False
        self._lock = threading.Lock()
        threading.Thread(target=self._mind, name="holders", daemon=True).start()

    def hear(self, holder: str) -> bool:
        """Note that one holds it; whether it does, for what ends just now is held by nobody."""
        with self._lock:
            if not self._is_ending:
                self._last_s = self._heard[holder] = time.monotonic()
            return not self._is_ending

    def let_go(self, holder: str) -> bool:
        """Note that one holds it no more; whether that was the last one, who is to end it."""
        with self._lock:
            self._heard.pop(holder, None)
            self._is_ending = not self._heard
            return self._is_ending

    def _mind(self) -> None:
        """Forget those that have died, and end with the last of them."""
        while not self._is_forgotten():
            time.sleep(min(HELD_EVERY_S, self._forgotten_s / 4))
        self._end()

    def _is_forgotten(self) -> bool:
        with self._lock:
            now_s = time.monotonic()
            self._heard = {
                holder: at_s
                for holder, at_s in self._heard.items()
                if now_s - at_s < self._forgotten_s
            }
            forgotten = not self._heard and now_s - self._last_s > self._forgotten_s
            self._is_ending |= forgotten
            return forgotten
