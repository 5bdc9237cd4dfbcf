"""The owner's commands do what their OpenAPI document says."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from fastapi import FastAPI
from schemathesis.schemas import BaseSchema

from tests.execution.scene import new_broker
from tests.serving.described import ask_all
from tests.serving.test_control import TOKEN, Market
from trading.execution.broker import PaperBroker
from trading.serving import control
from trading.serving.control import COMMANDS, TokenBucket, add_control

EXAMPLES = 30


class Generous(TokenBucket):
    """Allows everything: what limits the rate has its own tests."""

    def take(self) -> bool:
        return True


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[PaperBroker]:
    made = new_broker(tmp_path)
    yield made
    made.journal.close()


@pytest.fixture
def app(broker: PaperBroker, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setattr(control, "TokenBucket", Generous)
    made = FastAPI(title="trading")
    add_control(made, Market(broker))
    return made


@pytest.fixture
def schema(app: FastAPI) -> BaseSchema:
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def test_the_owners_commands_answer_as_described(schema: BaseSchema) -> None:
    statuses = ask_all(schema, {"Authorization": f"Bearer {TOKEN}"}, EXAMPLES)
    assert set(statuses) <= {200, 400, 401, 403, 409, 413}
    assert statuses[200] >= EXAMPLES and statuses[400] >= EXAMPLES


@pytest.mark.parametrize("token", ["Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x"])
def test_a_strangers_are_refused(schema: BaseSchema, broker: PaperBroker, token: str) -> None:
    # Schemathesis leaves the header out here and there.
    statuses = ask_all(schema, {"Authorization": token}, 5)
    assert set(statuses) <= {401, 403} and statuses[403]
    assert broker.account.owner_commands == 0


def test_without_a_token_they_are_refused(schema: BaseSchema, broker: PaperBroker) -> None:
    statuses = ask_all(schema, {}, 5)
    assert set(statuses) <= {401, 403} and statuses[401]
    assert broker.account.owner_commands == 0


def test_every_command_is_in_the_document(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    assert set(paths) == {f"/control/{name}" for name in COMMANDS}
    for path in paths.values():
        assert path["post"]["security"] == [{"owner": []}]
        answers = {int(status) for status in path["post"]["responses"]}
        assert answers == {200, 400, 401, 403, 409, 413, 429, 503}
