"""A quote of an option."""

import msgspec


class OptionQuote(msgspec.Struct, frozen=True, gc=False):
    """Best bid and offer of one contract, as the feed told it; prices in USD per share.

    One is made for each quote that arrives, so it is a struct without a place in the garbage
    collector's lists.

    Parameters
    ----------
    symbol
        The contract.
    bid, ask
        0 is a side without a price.
    bid_size, ask_size
        Contracts.
    ts_ns
        When it was quoted, UTC ns.
    sequence
        Rises from quote to quote of a contract within a session, with holes; it orders quotes of
        equal times.
    """

    symbol: str
    bid: float
    ask: float
    bid_size: float
    ask_size: float
    ts_ns: int
    sequence: int
