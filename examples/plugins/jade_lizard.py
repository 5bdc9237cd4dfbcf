"""Option structures: a jade lizard, a collar, a butterfly with a broken wing, a diagonal.

    trading backtest --simulated 5 --set plugins=examples/plugins/jade_lizard.py \\
        --set env.structures=jade_lizard,collar,broken_wing,diagonal
"""

import trading as td


@td.register_structure("jade_lizard", expiries=["far"])
def jade_lizard():
    """A sold put, and a sold call spread that costs less than both bring: no loss upwards."""
    return [
        td.StructureLeg("put", -1, delta=0.20),
        td.StructureLeg("call", -1, delta=0.30),
        td.StructureLeg("call", 1, width=2.0, of=1),  # 2 % of the price above it
    ]


@td.register_structure("collar")
def collar():
    """Shares whose loss a bought put ends, paid for by a sold call."""
    return [
        td.StructureLeg("stock", 1),
        td.StructureLeg("put", 1, delta=0.25),
        td.StructureLeg("call", -1, delta=0.25),
    ]


@td.register_structure("broken_wing")
def broken_wing():
    """A butterfly of puts whose lower wing is twice as far away, for less or for nothing."""
    return [
        td.StructureLeg("put", -2, delta=0.35),
        td.StructureLeg("put", 1, width=-2.0, of=0),
        td.StructureLeg("put", 1, width=4.0, of=0),
    ]


@td.register_structure("diagonal")
def diagonal():
    """A call of the far expiry in place of shares, and a call of the near one sold against it."""
    return [
        td.StructureLeg("call", 1, delta=0.60, expiry="far"),
        td.StructureLeg("call", -1, delta=0.25, beyond=0, expiry="near"),
    ]
