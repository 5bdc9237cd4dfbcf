"""Generated pages say what the code says; links lead somewhere, and commands can be typed."""

import ast
import pkgutil
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import trading
from tests.documented import FENCE, LINES, ROOT, TEXTS, Line
from trading.cli.reference import verbs
from trading.config import Settings, environment_names, load_settings
from trading.config.gone import GONE
from trading.config.tree import section_keys, settings_by_key
from trading.execution.journal.schema import SCHEMA_VERSION

PAGES = runpy.run_path(str(ROOT / "scripts" / "generate_docs.py"))["pages"]()
VERBS = {tuple(words.split()): command for _, words, command in verbs()}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose_of(page: Path) -> str:
    """A page without its blocks of code and spans of it."""
    return re.sub(r"`[^`]*`", "", FENCE.sub("", page.read_text()))


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's heads that a forge and the site make alike."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", head) for head in heads]
    bare = [re.sub(r"[^\w\- ]", "", head.lower()).strip() for head in plain]
    return {head.replace(" ", "-") for head in bare} & {
        re.sub(r"[- ]+", "-", head) for head in bare
    }


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_generated_page_is_up_to_date(path: Path) -> None:
    assert path.read_text() == PAGES[path], "run python scripts/generate_docs.py"


@pytest.mark.parametrize("page", TEXTS, ids=named)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)", prose_of(page)):
        there = page.parent / target if target else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors_of(there), f"{target}#{anchor}"


def test_the_site_has_every_page_in_its_navigation() -> None:
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]

    def leaves(tree: Any) -> Iterator[str]:
        if isinstance(tree, str):
            yield tree
        else:
            for each in tree.values() if isinstance(tree, dict) else tree:
                yield from leaves(each)

    told = [page for page in leaves(navigation) if not page.startswith("repository/")]
    docs = ROOT / "docs"
    assert sorted(told) == sorted(str(p.relative_to(docs)) for p in docs.rglob("*.md"))


def test_docstrings_have_sections_of_numpydoc() -> None:
    """Ruff does not know `Args:` as a section, so it says nothing of one."""
    other = re.compile(r"^ *(?:Args|Parameters|Attributes|Returns|Yields|Raises|Examples?):$", re.M)
    found = [
        named(path) for path in (ROOT / "trading").rglob("*.py") if other.search(path.read_text())
    ]
    assert not found


def test_the_list_of_decisions_is_complete() -> None:
    folder = ROOT / "docs" / "decisions"
    told = re.findall(r"\]\(([^)]+)\)", (folder / "index.md").read_text())
    assert sorted(told) == sorted(p.name for p in folder.glob("*.md") if p.name != "index.md")


@pytest.mark.parametrize(
    "page", ["glossary.md", "architecture.md", "parity.md", "learner.md", "learning-benchmark.md"]
)
def test_modules_that_a_page_names_exist(page: str) -> None:
    package = ROOT / "trading"
    text = (ROOT / "docs" / page).read_text()
    named = re.findall(r"`((?:tests/|[a-z_]+/)*[a-z_]+\.py|[a-z_]+(?:/[a-z_]+)*/)`", text)
    missing = [
        name
        for name in named
        if not (package / name).exists()
        and not (ROOT / name).exists()
        and not any(ROOT.glob(f"t*/**/{name}"))
    ]
    assert named and missing == []


def test_the_tour_names_functions_of_the_files_that_it_leads_through() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    tour = text.partition("## A tour of the code")[2].partition("\n## ")[0]
    steps = re.findall(r"`([\w/]+\.py)` \((`\w+`(?:, `\w+`)*)\)", " ".join(tour.split()))
    assert len(steps) > 20
    for file, functions in steps:
        tree = ast.parse((ROOT / "trading" / file).read_text())
        defined = {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)}
        assert set(re.findall(r"\w+", functions)) <= defined, file


def test_the_readme_names_every_environment_variable() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [name for name in environment_names() if f"`{name}`" not in readme] == []


def test_the_default_settings_file_holds_the_defaults() -> None:
    assert load_settings(ROOT / "configs" / "local.yaml", (), {}) == Settings()


def test_the_upgrade_note_knows_every_version_of_the_journal() -> None:
    text = (ROOT / "docs" / "upgrading.md").read_text()
    told = re.findall(r"^\| (\d+) \|", text, re.MULTILINE)
    assert told == [str(version) for version in range(1, SCHEMA_VERSION + 1)]


def test_pages_show_commands() -> None:
    assert len(LINES) > 100
    assert {line.words[0] for line in LINES} >= {verb for verb, *_ in VERBS} - {"compile-kernels"}


@pytest.mark.parametrize("line", LINES, ids=str)
def test_a_command_that_a_page_shows_is_one(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    if line.words[0] == "VERB" or line.words[0].startswith("-"):
        assert set(line.words) <= {"VERB", "-h", "--help", "--version", "--install-completion"}
        return
    depth = max(k for k in range(3) if not k or tuple(line.words[:k]) in VERBS)
    assert depth, f"there is no verb {line.words[0]}"
    command = VERBS[tuple(line.words[:depth])]
    rest = [w for w in line.words[depth:] if w not in ("…", "[OPTIONS]") and w[0] != "$"]
    if rest and rest[-1].startswith("-"):
        # Text names options without their values.
        assert rest.pop() in {name for each in command.params for name in each.opts} | {"--help"}
    context = command.context_class(command, info_name=" ".join(line.words[:depth]))
    given, left, _ = command.make_parser(context).parse_args(rest)
    assert not left, f"nothing takes {left}"
    monkeypatch.chdir(ROOT)
    config = given.get("config") or ""
    file = Path(config) if config.startswith("configs/") else None
    changed = [each for each in given.get("overrides") or () if not each.endswith("=NAME")]
    load_settings(file, changed, {"MASSIVE_API_KEY": "of-the-test"})


@pytest.mark.parametrize("page", TEXTS, ids=named)
def test_settings_that_a_page_names_exist(page: Path) -> None:
    sections = "risk|env|model|learning|execution|paths|safety|policy|notify|serving"
    told = re.findall(rf"`((?:{sections})\.[a-z_.]+)(?:[=:][^`]*)?`", page.read_text())
    known = {*settings_by_key(), *section_keys()}
    known |= GONE.keys() if page.name == "upgrading.md" else set()
    assert [key for key in told if key not in known and not key.endswith((".py", ".md"))] == []


@pytest.mark.parametrize("page", TEXTS, ids=named)
def test_names_of_the_package_that_a_page_uses_exist(page: Path) -> None:
    told = set(re.findall(r"\btd\.([a-zA-Z_]+)", page.read_text()))
    assert told <= set(trading.__all__)


def now_called() -> list[str]:
    """The names of the column "is" of the names in Python that went."""
    table = (ROOT / "docs" / "upgrading.md").read_text().partition("## Names in Python")[2]
    cells = [line.split(" | ")[1] for line in table.splitlines() if line.startswith("| ")]
    return [name for cell in cells for name in re.findall(r"`(trading(?:\.\w+)+)`", cell)]


def test_what_a_name_in_python_became_can_be_imported() -> None:
    names = now_called()
    assert len(names) > 40
    missing = []
    for name in names:
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            missing.append(name)
    assert missing == []
