"""Generated pages say what the code says; links lead somewhere, and commands can be typed."""

import ast
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from typer.testing import CliRunner

import trading
from tests.execution.scene import new_broker
from trading.cli.main import app
from trading.cli.reference import verbs
from trading.config import Settings, environment_names, load_settings
from trading.config.gone import GONE
from trading.config.tree import section_keys, settings_by_key
from trading.execution.journal.schema import SCHEMA_VERSION
from trading.learning.checkpoints import CheckpointStore

ROOT = Path(__file__).parents[1]
PAGES = runpy.run_path(str(ROOT / "scripts" / "generate_docs.py"))["pages"]()
TEXTS = sorted(
    [
        *(path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "infra").rglob("*.md"),
    ]
)
VERBS = {tuple(words.split()): command for _, words, command in verbs()}
_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_RUNS = re.compile(r"^(?:\w+=\S* )*(?:exec )?(?:\S*/)?(?:python -m )?trading ")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose_of(page: Path) -> str:
    """A page without its blocks of code and spans of it."""
    return re.sub(r"`[^`]*`", "", _FENCE.sub("", page.read_text()))


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's heads that a forge and the site make alike."""
    heads = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", head) for head in heads]
    bare = [re.sub(r"[^\w\- ]", "", head.lower()).strip() for head in plain]
    return {head.replace(" ", "-") for head in bare} & {
        re.sub(r"[- ]+", "-", head) for head in bare
    }


class Line(NamedTuple):
    """A command line that a page shows, without the program's name."""

    page: Path
    words: list[str]

    def __str__(self) -> str:
        return f"{named(self.page)}: trading {' '.join(self.words)}"


def lines_of(page: Path) -> Iterator[Line]:
    """Every command line of this program in a page's blocks and spans of code."""
    text = page.read_text()
    rest = _FENCE.sub("", text)
    for block in _FENCE.findall(text) + re.findall(r"^(?:    .*\n)+", rest, re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            told = re.split(r"\s(?:--|\S*exec) (?=\S*trading |python )", line.strip())[-1]
            if found := _RUNS.match(told):
                words = shlex.split(told[found.end() :], comments=True)
                ends = [k for k, word in enumerate(words) if word in ("|", ">", "&&", "&")]
                yield Line(page, words[: ends[0] if ends else None])
    for span in re.findall(r"`(?:python -m )?trading ([^`]+)`", rest):
        words = span.replace("\\|", "|").split()
        first = next((k for k, word in enumerate(words) if "|" in word), len(words))
        for choice in " ".join(words[first:]).split("|"):
            yield Line(page, [*words[:first], *shlex.split(choice)])


LINES = [line for page in TEXTS for line in lines_of(page)]


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


@pytest.mark.parametrize("page", ["glossary.md", "architecture.md", "parity.md"])
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


def test_what_the_first_hour_asks_of_an_account_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its order, where the account lies by default, while nobody trades it.

    What is left out starts the application or trains: it has tests of its own below `tests/e2e`,
    `tests/evaluation`, `tests/app` and `tests/cli`.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "var").mkdir()
    new_broker(tmp_path / "var", 100_000.0).journal.close()
    (tmp_path / "var" / "journal.db").rename(tmp_path / "var" / "journal-paper.sqlite")
    store = CheckpointStore(tmp_path / "var" / "checkpoints", 5)
    store.save(lambda folder: (folder / "weights").write_bytes(b"w"), {"step": 0})
    left_out = {"up", "doctor", "backtest", "market"}
    told = [
        line.words
        for line in LINES
        if line.page.name == "first-hour.md" and line.words[0] not in left_out
    ]
    verbs_run = set()
    for words in told:
        done = CliRunner().invoke(app, words, prog_name="trading")
        assert done.exit_code == 0, (words, done.output)
        verbs_run.add(words[0])
    assert verbs_run >= {"account", "report", "journal", "checkpoints", "stop"}
    assert (tmp_path / "report.html").exists()


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
