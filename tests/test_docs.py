"""Generated pages say what the code says, and the README's links lead somewhere."""

import re
import runpy
from pathlib import Path

import pytest

from trading.config import environment_names

ROOT = Path(__file__).parents[1]
PAGES = runpy.run_path(str(ROOT / "scripts" / "generate_docs.py"))["pages"]()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_generated_page_is_up_to_date(path: Path) -> None:
    assert path.read_text() == PAGES[path], "run python scripts/generate_docs.py"


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")], ids=lambda page: page.name
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", ["glossary.md", "architecture.md"])
def test_modules_that_a_page_names_exist(page: str) -> None:
    trading = ROOT / "trading"
    text = (ROOT / "docs" / page).read_text()
    named = re.findall(r"`((?:tests/|[a-z_]+/)*[a-z_]+\.py|[a-z_]+(?:/[a-z_]+)*/)`", text)
    missing = [
        name
        for name in named
        if not (trading / name).exists()
        and not (ROOT / name).exists()
        and not any(ROOT.glob(f"t*/**/{name}"))
    ]
    assert named and missing == []


def test_the_readme_names_every_environment_variable() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [name for name in environment_names() if f"`{name}`" not in readme] == []


def test_the_default_settings_file_holds_the_defaults() -> None:
    from trading.config import Settings, load_settings

    assert load_settings(ROOT / "configs" / "local.yaml", (), {}) == Settings()
