"""`trading backtest`: a model and the baselines on recorded or simulated sessions."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from trading.command_line import ConfigOption, SetOption, failures, misuse, settings_for


def backtest(
    config: ConfigOption = None,
    overrides: SetOption = None,
    history: Annotated[
        Path | None, typer.Option(help="Folder of a history; every day of it is traded.")
    ] = None,
    simulated: Annotated[
        int | None, typer.Option(min=1, help="Trade so many simulated sessions instead.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Checkpoint of the policy; unset: baselines only.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a tear sheet to this file.")] = None,
) -> None:
    """Trade whole sessions with a policy and with baselines, and compare what they came to."""
    if (history is None) == (simulated is None):
        misuse("give either --history FOLDER or --simulated SESSIONS")
    settings = settings_for(config, overrides or [])

    from trading.evaluation import backtest as trial
    from trading.evaluation.tear_sheet import summary, tear_sheet
    from trading.learning.checkpoints import load_module_weights
    from trading.learning.policy import Policy
    from trading.live import assembly

    rules, fees = assembly.trading_rules(settings), assembly.fee_schedule(settings)
    traders: dict[str, trial.Trader] = {}
    with failures():
        if model is not None:
            policy = Policy(assembly.model_config(settings), settings.seed)
            policy.load_weights(load_module_weights(model))
            traders["policy"] = trial.learnt(policy)
        traders |= {
            "hold cash": trial.hold,
            "covered call": trial.open_and_keep("covered_call_far_d30"),
            "iron condor": trial.open_and_keep("iron_condor_far_d30_15"),
            "random": trial.random_masked(settings.seed),
        }
        results = {
            name: trial.backtest_history(history, rules, fees, trader)
            if history is not None
            else trial.backtest_simulation(simulated or 1, settings.seed, rules, fees, trader)
            for name, trader in traders.items()
        }
        if html is not None:
            html.write_text(tear_sheet("Backtest", results), encoding="utf-8")

    columns = {name: dict(summary(result)) for name, result in results.items()}
    table = Table("", *columns)
    for figure in next(iter(columns.values())):
        table.add_row(figure, *(column[figure] for column in columns.values()))
    Console(highlight=False).print(table)
