"""Two accounts on one Ray cluster: what one of them does the other never notices."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.asking import client
from tests.e2e.application import Application, environment
from tests.e2e.ray_head import ray_head

pytestmark = [pytest.mark.slow, pytest.mark.long]

QUICK = (
    *("--set", "learning.pretrain_steps=4096"),
    *("--set", "learning.update_frequency=12"),
    *("--set", "learning.gate.sessions=20"),
)


class Accounts:
    """Two applications, each with an account of its own, on one cluster."""

    def __init__(self, folder: Path, address: str, env: dict[str, str], stack: ExitStack) -> None:
        self.first, self.second = (
            stack.enter_context(
                closing(
                    Application.up(
                        folder / name,
                        *QUICK,
                        *("--address", address, "--set", f"account.id={name}"),
                        env=env,
                    )
                )
            )
            for name in ("first", "second")
        )


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    folder = tmp_path_factory.mktemp("accounts")
    env = environment(RAY_USAGE_STATS_ENABLED="0")
    with ray_head(env, folder / "head.log") as head, ExitStack() as stack:
        both = Accounts(folder, head.address, env, stack)
        for each in (both.first, both.second):
            url(each)
        yield both


def url(application: Application) -> str:
    """Where the application says that it is served."""

    def said() -> str | None:
        found = re.search(r"serving: (http://\S+)/status", application.output())
        return found[1] if found else None

    return application.wait_until("the address of the HTTP service", said)


def status(application: Application) -> dict[str, Any]:
    def answered() -> dict[str, Any] | None:
        try:
            response = client.get(f"{url(application)}/status", timeout=20.0)
        except httpx.HTTPError:
            return None
        body: dict[str, Any] = response.json() if response.is_success else {}
        return body if "account" in body else None

    return application.wait_until("an answer of /status", answered)


def decides(application: Application, more: int = 3) -> dict[str, Any]:
    """Its status after so many more decisions."""
    before = status(application)["account"]["decisions"]

    def later() -> dict[str, Any] | None:
        now = status(application)
        return now if now["account"]["decisions"] >= before + more else None

    return application.wait_until("more decisions", later)


def test_each_account_is_served_where_its_application_says(accounts: Accounts) -> None:
    urls = [url(accounts.first), url(accounts.second)]
    assert urls[0] != urls[1]
    for each, name in ((accounts.first, "first"), (accounts.second, "second")):
        assert status(each)["account"]["id"] == name
    # One port listens: that of whoever came first. The other says so.
    ports = {str(each.port) for each in (accounts.first, accounts.second)}
    listening = {httpx.URL(each).port for each in urls}
    assert len(listening) == 1 and {str(each) for each in listening} < ports
    other = next(each for each in (accounts.first, accounts.second) if each.port not in listening)
    assert f":{other.port} have no effect" in other.output()
    paths = {"first": httpx.URL(urls[0]).path, "second": httpx.URL(urls[1]).path}
    assert "/" in paths.values()
    assert all(path in ("/", f"/{name}") for name, path in paths.items())


def test_one_that_ends_leaves_the_other_trading_and_able_to_start_again(
    accounts: Accounts,
) -> None:
    before = decides(accounts.first)
    gone = url(accounts.second)
    assert accounts.second.terminate() == 0, accounts.second.output()
    after = decides(accounts.first)
    assert (after["process"], after["restarts"]) == (before["process"], before["restarts"])
    if httpx.URL(gone).path != "/":
        assert "second" not in client.get(f"{gone}/status", timeout=20.0).text
    # What a live market begins with is its own registry's, which the other has not taken along.
    os.kill(after["process"], signal.SIGKILL)

    def again() -> dict[str, Any] | None:
        now = status(accounts.first)
        return now if now["process"] != after["process"] else None

    accounts.first.wait_until("a live market that Ray has started again", again)
    assert decides(accounts.first)["account"]["id"] == "first"
