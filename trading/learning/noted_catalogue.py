"""The actions and features that a model was learnt with, and what of them is another here.

Weights say only how many there are. With other ones of the same number, they would be read as if
nothing had changed.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trading.envs.catalogue import Action
from trading.envs.features import FEATURES
from trading.envs.market_features import Feature
from trading.envs.own_features import OwnFeatures
from trading.envs.structures import Structure, all_actions
from trading.errors import CheckpointError
from trading.learning.checkpoints import BEGIN_ANEW, MANIFEST, verify

CATALOGUE = "catalogue"
"""Of a checkpoint's metadata."""
_MOST_TOLD = 4


def noted_catalogue(
    features: OwnFeatures | None = None,
    others: Sequence[Feature] = (),
    structures: tuple[Structure, ...] = (),
) -> dict[str, dict[str, str]]:
    """Return a digest of each action and feature by its name, in order, as JSON values.

    Those of a user's own, `features` and `structures`, stand behind the usual ones, features with a
    digest of their code, and `others`, of `trading.envs.features.shown_last`, behind them.
    """
    actions = all_actions(structures)
    kinds: dict[str, tuple[Action | Feature, ...]] = {"actions": actions, "features": FEATURES}
    noted = {
        kind: {each.name: f"{k}:{_digest(each)}" for k, each in enumerate(entries)}
        for kind, entries in kinds.items()
    }
    if features is not None:
        own = zip(features.features, features.digests, strict=True)
        for k, (each, digest) in enumerate(own, len(FEATURES)):
            noted["features"][each.name] = f"{k}:{digest}"
    # They are read from the end of an observation.
    noted["features"] |= {
        each.name: f"{k - len(others)}:{_digest(each)}" for k, each in enumerate(others)
    }
    return noted


def check_catalogue(
    path: Path,
    metadata: Mapping[str, Any] | None = None,
    now: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Whether a checkpoint or model was learnt with the actions and features that there are now.

    One that does not tell, as those of before it was noted and files of weights alone, passes.

    Parameters
    ----------
    path
        Its folder or file.
    metadata
        What its manifest says, where that is known; None: it is read.
    now
        The actions and features of now, see `noted_catalogue`; None: those of this program alone.

    Raises
    ------
    CheckpointError
        It was learnt with others; the message names them.
    """
    if metadata is None:
        metadata = verify(path) if (path / MANIFEST).is_file() else {}
    then = metadata.get(CATALOGUE)
    if then is None:
        return
    told = [
        line
        for kind, entries in (noted_catalogue() if now is None else now).items()
        for line in _differences(kind, then.get(kind, {}), entries)
    ]
    if told:
        raise CheckpointError(
            f"{path} was learnt with other actions or features ({'; '.join(told)}): use the "
            "program, env.features, env.structures, plugins, execution.style and "
            "env.underlyings_per_account (1, or more) that it was learnt with, "
            f"{BEGIN_ANEW}"
        )


def _differences(kind: str, then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    common = then.keys() & now.keys()
    groups = {
        "only there": [name for name in then if name not in now],
        "only here": [name for name in now if name not in then],
        "another here": [name for name in now if name in common and now[name] != then[name]],
    }
    return [f"{kind} {what}: {_listed(names)}" for what, names in groups.items() if names]


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_MOST_TOLD])
    more = len(names) - _MOST_TOLD
    return f"{shown} and {more} more" if more > 0 else shown


def _digest(entry: object) -> str:
    return hashlib.sha256(repr(entry).encode()).hexdigest()[:8]
