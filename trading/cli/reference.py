"""Every verb of the `trading` command as a page: what it does, its arguments and options."""

import re
from collections.abc import Iterator
from typing import Any

import typer

from trading.cli.main import app
from trading.cli.verbs import GROUPS, PROGRAM, ClickCommand


def verbs() -> Iterator[tuple[str, str, ClickCommand]]:
    """Every verb that can be called: its group, its words after the program's name, the command.

    A verb that has verbs of its own comes before them.
    """
    root = typer.main.get_command(app)
    context = typer.main.get_command(app).make_context(PROGRAM, [], resilient_parsing=True)
    for group, members in GROUPS.items():
        for verb in members:
            command: Any = root.get_command(context, verb.name)  # type: ignore[attr-defined]
            yield group, verb.name, command
            for name, inner in getattr(command, "commands", {}).items():
                yield group, f"{verb.name} {name}", inner


def commands_page() -> str:
    """All of it as Markdown, a section for each verb, in the groups of the help."""
    lines: list[str] = []
    shown = ""
    for group, words, command in verbs():
        if command.hidden or any(v.name == words and v.is_hidden for v in GROUPS[group]):
            continue
        if group != shown:
            lines += [f"## {group}", ""]
            shown = group
        lines += [f"### {PROGRAM} {words}", "", _prose(command.help or "")]
        if not getattr(command, "commands", None):
            lines += ["", "```", _usage(words, command), "```", "", *_table(words, command)]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _usage(words: str, command: ClickCommand) -> str:
    told = [param for param in command.params if param.param_type_name == "argument"]
    names = [p.name.upper() if p.required else f"[{p.name.upper()}]" for p in told]
    return " ".join([PROGRAM, words, *names, "[OPTIONS]"])


def _table(words: str, command: ClickCommand) -> list[str]:
    context = command.make_context(f"{PROGRAM} {words}", [], resilient_parsing=True)
    rows = [(param, param.get_help_record(context)) for param in command.params]
    rows = [(param, record) for param, record in rows if record is not None]
    if not rows:
        return []
    lines = ["| | |", "|---|---|"]
    for param, (name, about) in rows:
        called = param.name.upper() if param.param_type_name == "argument" else name
        lines.append(f"| `{_cell(called)}` | {_cell(_prose(about))} |")
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _prose(text: str) -> str:
    """Return a help text with its lines joined, as Markdown that shows what it says."""
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text.replace("\f", ""))]
    return "\n\n".join(paragraphs).replace("<", "&lt;").replace("[", "\\[")
