"""Each noun is one thing, in plain English or in the glossary."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "trading"
FILES = sorted(PACKAGE.rglob("*.py"))

SAME_NAME = {
    "Trade": "the vendor's event of a trade; in a report, a strategy from its opening to its close",
}
"""Public names that two things have, and why both keep it."""

SAME_MODULE = {
    "own_features": "what a feature is given, and which ones a file registers",
    "rule_based": "a rule-based trader as a file registers it, and as it decides live",
    "strategies": "the accounts of the section `strategies`: their settings, and what HTTP says",
    "working_orders": "orders that work from mid to the touch, of one account and of a batch",
}
"""Names of modules that two packages have, and the one thing that both are about.

Verbs (`cli`) and what `import trading as td` offers (`api`) have the names of what they show.
"""

REPLACED = {
    *("sight", "sights", "see", "purse", "purses", "board", "boards", "books", "crossing"),
    *("succession", "reign", "standing", "enthrone", "dethrone", "ruling", "verdict", "reported"),
    *("rehearse", "rehearsal", "rehearsed", "crept", "heed", "attend", "retreat"),
    *("reserve", "reserved", "reservation", "requirement", "covers"),
}
"""Words of former versions that the field has better ones for; see docs/upgrading.md."""


def words_of(name: str) -> list[str]:
    """Words of an identifier, in lower case: `CLSTMConfig` is clstm and config."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def public_names(file: Path) -> Iterator[tuple[str, str]]:
    """Classes, functions and aliases of types of a module, each with what it stands for."""
    for each in ast.parse(file.read_text()).body:
        match each:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name, f"{file}"
            case (
                ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
                | ast.Assign(targets=[ast.Name(id=name)], value=value)
            ) if re.fullmatch(r"[A-Z][a-z]\w*", name):
                yield name, ast.unparse(value)


def modules() -> dict[str, list[Path]]:
    """Modules outside of `cli` and `api`, by their name."""
    named = defaultdict(list)
    for file in FILES:
        place = file.relative_to(PACKAGE)
        if not file.stem.startswith("__") and place.parts[0] not in ("cli", "api"):
            named[file.stem].append(place)
    return named


def test_no_two_things_have_one_name() -> None:
    named = defaultdict(set)
    for file in FILES:
        # A verb has the name of what it does, which a function elsewhere may do.
        is_verb = file.parent.name == "cli"
        for name, what in public_names(file):
            if not name.startswith("_") and not (is_verb and name[0].islower()):
                named[name].add(what)
    shared = {name: places for name, places in named.items() if len(places) > 1}
    assert {name: places for name, places in shared.items() if name not in SAME_NAME} == {}
    assert {"Trade"} <= shared.keys()


def test_no_two_modules_have_one_name_but_where_they_are_about_one_thing() -> None:
    shared = {name: places for name, places in modules().items() if len(places) > 1}
    assert {name: places for name, places in shared.items() if name not in SAME_MODULE} == {}


def test_no_name_has_a_word_that_was_replaced() -> None:
    found = [
        f"{file.relative_to(ROOT)}: {name}"
        for file in FILES
        for name in [file.stem, *(name for name, _ in public_names(file))]
        if REPLACED.intersection(words_of(name))
    ]
    assert found == []


def glossary_words() -> set[str]:
    """Words of the glossary's terms, with a plural s too."""
    terms = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    words = {word.lower() for term in terms for word in re.findall(r"[A-Za-z]+", term)}
    return words | {f"{word}s" for word in words}


def test_names_of_classes_and_modules_are_plain_english_or_in_the_glossary() -> None:
    # By its name: type checkers need not have it.
    spelling = import_module("spellchecker").SpellChecker(language="en", distance=1)
    named: defaultdict[str, list[str]] = defaultdict(list)
    for file in FILES:
        for part in file.relative_to(PACKAGE).with_suffix("").parts:
            for word in () if part.startswith("__") else words_of(part):
                named[word].append(str(file.relative_to(ROOT)))
        for each in ast.parse(file.read_text()).body:
            if isinstance(each, ast.ClassDef) and not each.name.startswith("_"):
                for word in words_of(each.name):
                    named[word].append(each.name)
    strange = spelling.unknown(named.keys() - glossary_words())
    assert {word: named[word][:3] for word in sorted(strange)} == {}
    assert spelling.unknown({"clstm", "purse", "reqmt"}) == {"clstm", "reqmt"}


def test_a_word_of_a_name_is_told_apart() -> None:
    assert words_of("CLSTMPPOConfig") == ["clstmppo", "config"]
    assert words_of("reg_t") == ["reg", "t"]
    assert words_of("RestApi") == ["rest", "api"]
