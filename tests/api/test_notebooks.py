"""The notebooks' cells run from the first to the last, in a process of their own folder."""

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.reporting.conftest import journal  # noqa: F401 - a fixture
from trading.plugins import discovery
from trading.plugins.plugin_registry import REGISTRY

EXAMPLES = Path(__file__).parents[2] / "examples"


def played(name: str) -> dict[str, Any]:
    """Run every cell of code as Jupyter does: the last expression is the cell's answer."""
    content = json.loads((EXAMPLES / name).read_text())
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in content["cells"]:
        assert not cell.get("outputs"), "committed without what they once answered"
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        *body, last = tree.body
        exec(compile(ast.Module(body, []), f"{name} {cell['id']}", "exec"), names)
        if isinstance(last, ast.Expr):
            names["_"] = eval(compile(ast.Expression(last.value), name, "eval"), names)
        else:
            exec(compile(ast.Module([last], []), f"{name} {cell['id']}", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for kind in ("traders", "baselines", "fee_schedules"):
        monkeypatch.setattr(REGISTRY, kind, {})
    monkeypatch.setattr(discovery, "_loaded", {})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_first_hour(alone: Path, journal: Path) -> None:  # noqa: F811
    (alone / "var").mkdir()
    shutil.copy(journal, alone / "var" / "journal-paper.sqlite")
    names = played("first_hour.ipynb")
    assert len(names["journal"].days) == 25
    assert names["_"] <= 0.0, "a drawdown is no gain"
    assert len(names["journal"].trades) == 26


def test_a_strategy_of_ones_own(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = played("own_strategy.ipynb")
    assert names["_"] is True, "in a file it trades as it did in the notebook"
    assert (names["result"].trades > 0).any()
    assert "the mask does not allow it" in " ".join(capsys.readouterr().out.split())
