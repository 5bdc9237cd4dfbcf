"""Where each default of the fees comes from, and since when it holds."""

from typing import NamedTuple

from trading.config.settings import ExecutionSettings


class FeeSource(NamedTuple):
    """One fee: the setting that holds it, when the default came into force, and who says so."""

    setting: str
    since: str
    source: str
    unconfirmed: str = ""
    """What could not be confirmed, with where to look it up; empty where it was."""


SOURCES = (
    FeeSource("commission", "-", "A usual retail rate; your broker's price list."),
    FeeSource("exchange_fee", "-", "Part of most retail commissions; else your broker's list."),
    FeeSource(
        "orf_fee",
        "2025-03-03",
        "Sum of all exchanges as Interactive Brokers passes it on (knowledge base, ORF).",
        "Exchanges filed a new method for 2026 (for example SR-MIAX-2026-01, 91 FR 4754), under "
        "which an exchange charges its own executions only: the sum since then is not confirmed. "
        "Take your broker's figure.",
    ),
    FeeSource("occ_fee", "2025-02-14", "OCC schedule of fees, 90 FR 10544."),
    FeeSource(
        "taf_fee",
        "2026-01-01",
        "FINRA By-Laws, Schedule A, section 1 (SR-FINRA-2024-019).",
        "Read from the filing; FINRA's page of the fee was not seen. It is reviewed each January.",
    ),
    FeeSource(
        "sec_fee_per_million",
        "2026-04-04",
        "SEC fee rate advisory, release 34-104909, 91 FR 10643; zero from 2025-05-14 until then.",
        "The rate of the fiscal year that began in October 2026 was not seen; it is set anew once "
        "or twice a year, 60 days after the SEC's appropriation.",
    ),
    FeeSource("stock_commission", "-", "Nothing at most retail brokers."),
    FeeSource(
        "stock_taf_fee",
        "2026-01-01",
        "As taf_fee.",
        "As taf_fee.",
    ),
    FeeSource("stock_taf_cap", "2026-01-01", "As taf_fee.", "As taf_fee."),
    FeeSource(
        "cash_interest_pct",
        "-",
        "Zero: a broker's choice. A usual benchmark is the federal funds rate less half a percent.",
    ),
    FeeSource(
        "borrow_fee_pct",
        "-",
        "Zero: it differs by stock and day. Easy ones cost a quarter of a percent a year.",
    ),
)


def fees_table() -> str:
    """Every setting of the costs with its default, since when and whose, as a Markdown table."""
    rows = [
        "| setting | default | in force since | source | not confirmed |",
        "|---|---|---|---|---|",
    ]
    fields = ExecutionSettings.model_fields
    for each in SOURCES:
        field = fields[each.setting]
        rows.append(
            f"| `execution.{each.setting}` | {field.default:g}: {field.description} | {each.since} "
            f"| {each.source} | {each.unconfirmed or '-'} |"
        )
    return "\n".join(rows) + "\n"
