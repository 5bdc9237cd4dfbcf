"""The whole HTTP service of a running application does what its OpenAPI document says."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import schemathesis
from schemathesis.schemas import BaseSchema

from tests.e2e.application import Application, environment, write_model
from tests.serving.described import ask_all
from trading.serving.control import COMMANDS

pytestmark = [pytest.mark.slow, pytest.mark.long]

TOKEN = "token-of-the-test-0123456789abcdef"
EXAMPLES = 4


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    folder = tmp_path_factory.mktemp("api")
    quick = ["--symbols", "SPY", "--set", "learning.online=false"]
    quick += ["--set", "learning.pretrain_steps=0"]
    quick += ["--set", f"paths.model_path={write_model(folder / 'model')}"]
    env = environment(CONTROL_TOKEN=TOKEN)
    with closing(Application.up(folder, *quick, env=env)) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def schema(application: Application) -> BaseSchema:
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{application.port}/openapi.json")


def test_it_describes_every_route(schema: BaseSchema) -> None:
    paths = {found.ok().path for found in schema.get_all_operations()}
    reading = {"/health", "/ready", "/status", "/metrics", "/journal", "/chain/{underlying}"}
    assert paths == reading | {f"/control/{name}" for name in COMMANDS}


@pytest.mark.parametrize("authorization", [None, "Bearer wrong"])
def test_strangers_read_and_command_nothing(
    application: Application, schema: BaseSchema, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    statuses = ask_all(schema, headers, EXAMPLES)
    assert set(statuses) <= {200, 400, 401, 403, 404, 422, 429, 503}
    assert application.status()["account"]["trading_state"] == "ACTIVE"


def test_the_owner_is_answered_as_described(application: Application, schema: BaseSchema) -> None:
    statuses = ask_all(schema, {"Authorization": f"Bearer {TOKEN}"}, EXAMPLES, probes=False)
    assert statuses[200]
    assert 500 not in statuses
    assert application.terminate() == 0, application.output()
    assert Path(application.log).read_text().count("Traceback") == 0
