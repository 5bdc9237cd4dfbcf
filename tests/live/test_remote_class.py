"""Who asks the live market's actor something loads its class, and no more than that."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

from ray import cloudpickle

from trading.live.actor import LiveMarket
from trading.live.remote_class import remote_class


def test_it_has_the_methods_of_the_live_market_and_its_name() -> None:
    kind = remote_class(LiveMarket)
    public = {name for name in vars(LiveMarket) if not name.startswith("_")}
    assert {"unlock", "next_update", "stop"} <= public <= set(vars(kind))
    assert kind.__name__ == "LiveMarket"


def test_it_calls_one_that_it_makes() -> None:
    made = remote_class(Counter)("abba")
    assert made.most_common(1) == [("a", 2)]


def test_who_gets_its_handle_loads_nothing_of_this_package(tmp_path: Path) -> None:
    file = tmp_path / "class"
    file.write_bytes(cloudpickle.dumps(remote_class(LiveMarket)))
    code = (
        "import sys; from ray import cloudpickle; from pathlib import Path; "
        "kind = cloudpickle.loads(Path(sys.argv[1]).read_bytes()); print(kind.__name__); "
        "print([name for name in sys.modules if name.split('.')[0] in ('trading', 'torch')])"
    )
    words = [sys.executable, "-c", code, str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["LiveMarket", "[]"]
