"""Asks every operation of an OpenAPI document what fits it and what does not, by schemathesis.

503 with its reason is an answer of these routes. 500 is none: it is not in the document.
"""

from collections import Counter
from collections.abc import Mapping

from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection


def ask_all(
    schema: BaseSchema, headers: Mapping[str, str], examples: int, *, probes: bool = True
) -> "Counter[int]":
    """Ask, check each answer against the document, and count the answers by their status.

    Args:
        schema: The document, and how to reach who serves it.
        headers: Of every request.
        examples: Requests of each operation, of those that fit and as many of those that do not.
        probes: Whether what is answered is asked again without a token and with a wrong one; no use
            where strangers are slowed down, which is another refusal.
    """
    excluded = [not_a_server_error] if probes else [not_a_server_error, ignored_auth]
    statuses: Counter[int] = Counter()
    for found in schema.get_all_operations():
        operation = found.ok()
        takes = bool(operation.body)
        for mode in list(GenerationMode) if takes else [GenerationMode.POSITIVE]:

            @settings(
                max_examples=examples if takes else 2,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Case) -> None:
                response = case.call(headers=dict(headers))
                statuses[response.status_code] += 1
                # A body that is too long is refused too, by a status schemathesis does not expect.
                long = [negative_data_rejection] if response.status_code == 413 else []
                case.validate_response(
                    response, excluded_checks=[*excluded, *long], headers=dict(headers)
                )

            ask()
    return statuses
