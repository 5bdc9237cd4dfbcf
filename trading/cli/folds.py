"""Options of the verbs that make folds: how days are shared out, how much a fold learns from."""

from pathlib import Path
from typing import Annotated

import typer

HistoryOfFoldsOption = Annotated[
    Path | None, typer.Option(help="Folder of the history whose days make the folds.")
]
PurgeOption = Annotated[
    int, typer.Option(min=0, help="Days before the test days that are not learnt from.")
]
EmbargoOption = Annotated[
    int, typer.Option(min=0, help="Days after a fold's test days that later folds leave out.")
]
StepsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Decisions to learn from in a fold: learning.pretrain_steps."),
]
