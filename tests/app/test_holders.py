"""Who holds an actor that applications have in common."""

import threading
import time

from tests.waits import WAIT_S
from trading.app.holders import Holders

FORGOTTEN_S = 3.0


def test_the_last_one_is_told_so_and_nobody_is_let_in_after_it() -> None:
    ended = threading.Event()
    holders = Holders(ended.set, forgotten_s=WAIT_S)
    assert holders.hear("a") and holders.hear("b") and holders.hear("a")
    assert not holders.let_go("a")
    assert holders.let_go("b")
    assert not holders.hear("c"), "it ends just now"
    assert not ended.is_set(), "whoever was the last one ends it"


def test_those_who_died_are_forgotten_and_it_ends_with_the_last_of_them() -> None:
    ended = threading.Event()
    holders = Holders(ended.set, FORGOTTEN_S)
    holders.hear("dead")
    until_s = time.monotonic() + 1.5 * FORGOTTEN_S
    while time.monotonic() < until_s:
        assert holders.hear("alive"), "one that is heard of keeps it"
        time.sleep(0.05)
    assert holders.let_go("alive"), "the other one is forgotten"
    assert ended.wait(WAIT_S), "it ends where the last one died before it ended it"
    assert not holders.hear("late")
