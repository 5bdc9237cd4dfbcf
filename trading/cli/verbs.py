"""The verbs of the `trading` command: names, groups, and how each is loaded when asked for.

A verb's module is imported when the verb is called or its own help is asked for, so that no command
waits for what another one needs.
"""

import difflib
from importlib import import_module
from typing import Any, NamedTuple, TypeAlias

import typer
from typer.core import TyperGroup

Context: TypeAlias = Any
ClickCommand: TypeAlias = Any
HelpFormatter: TypeAlias = Any
"""Typer's own, or Click's: which of them depends on Typer's version."""

PROGRAM = "trading"


class Verb(NamedTuple):
    """One verb."""

    name: str
    about: str
    """What it does, on the rest of a line of 80 characters."""
    module: str
    attribute: str
    """A function, or an application of Typer with verbs of its own."""
    is_hidden: bool = False
    """Whether the help leaves it out: it is for who builds images."""


GROUPS: dict[str, tuple[Verb, ...]] = {
    "Trade": (
        Verb("up", "market data, trading, learning and the HTTP service", "run", "up"),
        Verb("stop", "have the application that trades end in order", "stop", "stop"),
        Verb("account", "how it stands; halt, reduce, resume, flatten", "account", "account_app"),
    ),
    "Learn": (
        Verb("train", "learn on simulated markets or a history", "run", "train"),
        Verb("tune", "search settings that learn better", "tune", "tune"),
        Verb("backtest", "trade whole sessions beside baselines", "evaluation", "backtest"),
        Verb("evaluate", "walk forward: learn, then trade later days", "evaluation", "evaluate"),
        Verb(
            "checkpoints",
            "champions and checkpoints, and which one trades",
            "checkpoints",
            "checkpoints_app",
        ),
    ),
    "Look": (
        Verb("market", "show, draw and fit simulated markets", "market", "market_app"),
        Verb("report", "what an account did: profit, risk, every trade", "report", "report"),
        Verb("journal", "check, print and export an account's journal", "journal", "journal_app"),
    ),
    "Data": (
        Verb("feed", "share one connection to Massive.com among readers", "feed", "feed"),
        Verb("download", "fetch history of Massive.com", "data", "download"),
        Verb("import", "import flat files that were downloaded", "data", "import_"),
        Verb("history", "write recorded days as markets to learn on", "history", "history"),
    ),
    "Machine": (
        Verb("config", "check and print the settings, or explain them", "config", "config_app"),
        Verb("doctor", "whether this machine can run it", "doctor", "doctor"),
        Verb("compile-kernels", "machine code ahead", "kernels", "compile_kernels", True),
    ),
}

EXAMPLES = (
    ("trading up", "trade a simulated exchange"),
    ("trading up --config configs/paper.yaml", "trade on quotes of Massive.com"),
)
_FLAGS = "-h of any verb · --version · --debug · --install-completion"
_ALSO_CALLED = {"run": "up", "start": "up", "trade": "up", "quit": "stop", "settings": "config"}
_VERBS = {verb.name: verb for verbs in GROUPS.values() for verb in verbs}


class Verbs(TyperGroup):
    """The group of all verbs."""

    def list_commands(self, ctx: Context) -> list[str]:
        """Return the names, in the order of the help."""
        return list(_VERBS)

    def get_command(self, ctx: Context, cmd_name: str) -> ClickCommand | None:
        """Return the verb of that name, imported now."""
        verb = _VERBS.get(cmd_name)
        return None if verb is None else _loaded(verb)

    def resolve_command(self, ctx: Context, args: list[str]) -> Any:
        """Return the verb that is called; a wrong name ends with what may have been meant."""
        if args[0] not in _VERBS:
            near = _meant(ctx, self, args[0])
            hint = f"did you mean `{PROGRAM} {near}`?" if near else f"see `{PROGRAM} --help`"
            ctx.fail(f"there is no verb {args[0]!r}: {hint}")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        """All verbs by group, on one screen."""
        formatter.write(f"Usage: {PROGRAM} VERB [OPTIONS]: {self.help}\n\n")
        for group, verbs in GROUPS.items():
            for place, verb in enumerate(verb for verb in verbs if not verb.is_hidden):
                heading = typer.style(f"{'' if place else group:<9}", bold=True)
                formatter.write(f"{heading}{verb.name:<17}{verb.about}\n")
        formatter.write("\n")
        for example, does in EXAMPLES:
            formatter.write(f"  {example:<47}{does}\n")
        formatter.write(_FLAGS + "\n")


def _loaded(verb: Verb) -> ClickCommand:
    target = getattr(import_module(f"{__package__}.{verb.module}"), verb.attribute)
    if not isinstance(target, typer.Typer):
        alone = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
        alone._add_completion = False
        alone.command(verb.name)(target)
        target = alone
    command = typer.main.get_command(target)
    command.name = verb.name
    return command


def _meant(ctx: Context, group: Verbs, name: str) -> str:
    """Return a verb, with the one that it is part of, that is called much like this; or nothing."""
    names = {**{verb: verb for verb in _VERBS}, **_ALSO_CALLED}
    for verb in _VERBS.values():
        if verb.attribute.endswith("_app"):
            within = group.get_command(ctx, verb.name)
            for inner in getattr(within, "commands", {}):
                names.setdefault(inner, f"{verb.name} {inner}")
    near = difflib.get_close_matches(name.lower(), names, n=1)
    return names[near[0]] if near else ""
