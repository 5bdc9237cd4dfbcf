"""Every event of the journal as one line for people."""

from collections.abc import Callable
from typing import Any

from trading.execution.events import (
    AccountOpened,
    BasesScaled,
    Carried,
    CashMoved,
    ChallengerRejected,
    ChampionPromoted,
    ChampionRolledBack,
    Compared,
    CorporateActionApplied,
    DecisionMade,
    DividendPaid,
    Event,
    MarginChanged,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OrderRepriced,
    OwnerCommanded,
    PeakReset,
    SessionClosed,
    Settled,
    StateChanged,
    TermsAdopted,
    TimeTakenBack,
    UnderlyingReinstated,
    UnderlyingSuspended,
    WeightsAdopted,
)


def kind_of(event: Event) -> str:
    """Return the name that the journal has for this kind of event."""
    return str(event.__struct_config__.tag)


def describe_event(event: Event) -> str:
    """Return what an event says, without its time and kind."""
    return _DESCRIBED[kind_of(event)](event)


def _amount(quantity: int, symbol: str) -> str:
    """Contracts, or round lots of a stock."""
    return f"{quantity:+d} {symbol}" if symbol.startswith("O:") else f"{quantity:+d} lots {symbol}"


def _opened(event: AccountOpened) -> str:
    return f"{event.account_id} with {event.cash:.2f} USD"


def _decided(event: DecisionMade) -> str:
    masked = " (masked)" if event.masked else ""
    chance = "" if event.probability is None else f" with probability {event.probability:.4f}"
    by = f"value {event.value:+.4f}, reward {event.reward:+.4f}, weights {event.weights_version}"
    if event.trader:
        chance, by = "", f"reward {event.reward:+.4f}, by {event.trader}"
    return f"{event.underlying} {event.action_name}{masked}{chance}, {by}"


def _accepted(event: OrderAccepted) -> str:
    order = event.order
    legs = ", ".join(_amount(leg.ratio, leg.symbol) for leg in order.legs)
    limit = "" if order.limit_price is None else f" {order.limit_price:.2f}"
    return (
        f"{order.order_id} {order.intent} {order.units} {order.strategy} on {order.underlying}, "
        f"{order.order_type}{limit} {order.time_in_force}: {legs}"
    )


def _repriced(event: OrderRepriced) -> str:
    return f"{event.order_id} step {event.step}: limit {event.limit_price:.2f}"


def _rejected(event: OrderRejected) -> str:
    rejection = event.rejection
    return f"{rejection.order_id} {rejection.reason}: {rejection.detail}"


def _filled(event: OrderFilled) -> str:
    fill = event.fill
    legs = ", ".join(f"{_amount(leg.quantity, leg.symbol)} at {leg.price:.2f}" for leg in fill.legs)
    return f"{fill.fill_id} {legs}; premium {fill.premium:+.2f}, fees {fill.fees:.2f}"


def _cancelled(event: OrderCancelled) -> str:
    return f"{event.order_id}: {event.reason}"


def _settled(event: Settled) -> str:
    unit = "shares" if event.lot else "lots"
    source = f" ({event.source})" if event.source else ""
    stock = f", stock {event.lots:+d} {unit}" if event.lots else ""
    return (
        f"{event.quantity:+d} {event.symbol} {event.ending} at {event.price:.2f}, underlying "
        f"{event.underlying_price:.2f}{source}: cash {event.cash:+.2f}{stock}"
    )


def _carried(event: Carried) -> str:
    fees = "".join(f", {name} borrowed {-fee:+.2f}" for name, fee in event.borrow_fees.items())
    return f"to {event.through}: interest {event.interest:+.2f}{fees}"


def _dividend_paid(event: DividendPaid) -> str:
    return (
        f"{event.amount:.4f} a share on {event.lots:+d} lots of {event.underlying}, ex "
        f"{event.ex_date}: cash {event.cash:+.2f}"
    )


def _corporate_action_applied(event: CorporateActionApplied) -> str:
    changes = ", ".join(
        f"{each.quantity:+d} {each.symbol or 'of'} -> {each.into_quantity:+d} {each.into or 'cash'}"
        for each in event.converted
    )
    lieu = f", of it {event.cash_in_lieu:+.2f} in lieu of fractions" if event.cash_in_lieu else ""
    return (
        f"{event.underlying} {event.what} {event.terms}, ex {event.ex_date}: {changes}; cash "
        f"{event.cash:+.2f}{lieu}"
    )


def _margin_changed(event: MarginChanged) -> str:
    return f"{event.underlying} holds back {event.reserve_per_unit:.2f} a unit"


def _peak_reset(event: PeakReset) -> str:
    return f"drawdown from {event.equity:.2f} on"


def _session_closed(event: SessionClosed) -> str:
    return f"{event.date}, equity {event.equity:.2f}"


def _state_changed(event: StateChanged) -> str:
    if not event.cause or event.reason == event.cause:
        return f"{event.trading_state}: {event.reason}"
    did = "ended" if event.restricts == "active" else "entered"
    return f"{event.trading_state}: {event.cause} {did}, {event.reason}"


def _terms_adopted(event: TermsAdopted) -> str:
    return f"bars of {event.terms.get('data.bar_seconds', '?')} s, {len(event.terms)} terms"


def _owner_commanded(event: OwnerCommanded) -> str:
    what = f"{event.symbol}" if event.symbol else f"{event.amount:.2f}" if event.amount else ""
    why = f", {event.why}" if event.why else ""
    return f"{event.command} {what} by {event.by} at {event.at}{why}: {event.answer}"


def _cash_moved(event: CashMoved) -> str:
    return f"{event.amount:+.2f} USD {'paid in' if event.amount > 0.0 else 'taken out'}"


def _bases_scaled(event: BasesScaled) -> str:
    return f"equity {event.equity:.2f}: what losses are measured from follows it"


def _underlying_suspended(event: UnderlyingSuspended) -> str:
    return f"{event.underlying}: {event.reason}"


def _underlying_reinstated(event: UnderlyingReinstated) -> str:
    lifted = f" after {event.lifts}" if event.lifts else ""
    return f"{event.underlying}{lifted}: {event.reason}"


def _time_taken_back(event: TimeTakenBack) -> str:
    return f"events dated later hold nothing up; last session {event.last_session or 'none'}"


def _weights_adopted(event: WeightsAdopted) -> str:
    return f"version {event.version}, {event.digest}"


def _champion_promoted(event: ChampionPromoted) -> str:
    return (
        f"{event.champion} (version {event.version}) after {event.before or 'none'}, by "
        f"{event.by}: {event.reason}{_numbers(event.kl, event.compared)}"
    )


def _challenger_refused(event: ChallengerRejected) -> str:
    reset = "; learning begins again from the champion" if event.reset else ""
    return (
        f"version {event.version}, {event.in_a_row} in a row: {event.reason}{reset}"
        f"{_numbers(event.kl, event.compared)}"
    )


def _champion_rolled_back(event: ChampionRolledBack) -> str:
    equity, peak = (
        "not known" if each is None else f"{each:.2f}" for each in (event.equity, event.peak)
    )
    return (
        f"{event.champion} (version {event.version}) after {event.discarded}, by {event.by}: "
        f"{event.reason}; equity {equity}, peak {peak}"
    )


def _numbers(kl: float | None, compared: tuple[Compared, ...]) -> str:
    """Return what the gate measured, in percent of the initial capital a session."""
    parts = [] if kl is None else [f"kl {kl:.4f}"]
    for each in compared:
        bounds = (
            "" if each.low is None or each.high is None else f" [{each.low:+.3f}, {each.high:+.3f}]"
        )
        parts.append(f"{each.held_out} {each.difference:+.3f} %{bounds} on {each.sessions}")
    return f" ({', '.join(parts)})" if parts else ""


_DESCRIBED: dict[str, Callable[[Any], str]] = {
    "account_opened": _opened,
    "decision_made": _decided,
    "order_accepted": _accepted,
    "order_repriced": _repriced,
    "order_rejected": _rejected,
    "order_filled": _filled,
    "order_cancelled": _cancelled,
    "settled": _settled,
    "carried": _carried,
    "dividend_paid": _dividend_paid,
    "corporate_action_applied": _corporate_action_applied,
    "margin_changed": _margin_changed,
    "peak_reset": _peak_reset,
    "session_closed": _session_closed,
    "state_changed": _state_changed,
    "terms_adopted": _terms_adopted,
    "owner_commanded": _owner_commanded,
    "cash_moved": _cash_moved,
    "bases_scaled": _bases_scaled,
    "underlying_suspended": _underlying_suspended,
    "underlying_reinstated": _underlying_reinstated,
    "time_taken_back": _time_taken_back,
    "weights_adopted": _weights_adopted,
    "champion_promoted": _champion_promoted,
    "challenger_refused": _challenger_refused,
    "champion_rolled_back": _champion_rolled_back,
}
