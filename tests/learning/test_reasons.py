"""Every setting of network, learner and gate has its reason in docs/learner.md."""

import re
from pathlib import Path

from trading.config.tree import settings_by_key

PAGE = Path(__file__).parents[2] / "docs" / "learner.md"


def test_every_setting_of_the_learner_has_its_reason() -> None:
    table = PAGE.read_text().partition("## Every setting, and why it is there")[2]
    rows = re.findall(r"^\| (`[a-z_.`, ]+`) \| ([^|]+) \| ([^|]+) \|$", table, re.MULTILINE)
    told = [key for names, _, _ in rows for key in re.findall(r"`([a-z_.]+)`", names)]
    known = {key for key in settings_by_key() if key.startswith(("learning.", "model."))}
    assert sorted(told) == sorted(known)
    assert all(len(why.split()) >= 3 for _, _, why in rows)
