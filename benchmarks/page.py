"""The page in a browser: first paint, until the account is drawn, and bytes of a day of bars.

    python benchmarks/page.py                     # a session of its own, two to three minutes
    python benchmarks/page.py --rounds 3 --bars 60

The application trades a whole simulated session at many times its speed, and Ray's own dashboard
runs beside it as the peer: another live page about the same processes, opened by the same Chromium.
Each round is a fresh browser profile, so nothing is cached, and opens the page a second time with
what it has kept; both pages take turns.
"""

import argparse
import os
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import msgspec
from endpoints import wait_ready
from figures import Figures, add_json, publish
from machine import processor

PAINTED = {
    **{"first paint ms": "{:.0f}", "drawn ms": "{:.0f}", "processor ms": "{:.0f}"},
    **{"kB sent": "{:.0f}", "kB unpacked": "{:.0f}", "answers": "{:.0f}"},
}
SENT = {"bars": "{:.0f}", "fills": "{:.0f}", "kB sent": "{:.1f}", "kB unpacked": "{:.1f}"}
OURS, PEER = "the page", "Ray's dashboard"
DRAWN = {OURS: "#equity .uplot", PEER: "text=Overview"}
"""What stands on a page once it shows what it is about."""
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
SESSION_S = 900.0


@dataclass
class Opened:
    """One opening of a page."""

    paint_ms: float = 0.0
    drawn_ms: float = 0.0
    processor_ms: float = 0.0
    """Of the thread that runs the page, until it is drawn: what else is busy does not count."""
    sent: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Bytes on the wire by request, heads included."""
    unpacked: float = 0.0

    def cells(self) -> list[float]:
        kb = sum(self.sent.values()) / 1000
        times = [self.paint_ms, self.drawn_ms, self.processor_ms]
        return [*times, kb, self.unpacked / 1000, len(self.sent)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="openings of each page")
    parser.add_argument("--bars", type=int, default=380, help="of the session, before it is opened")
    parser.add_argument("--speed", type=float, default=600.0, help="of the simulated exchange")
    parser.add_argument("--port", type=int, default=18_090)
    add_json(parser)
    options = parser.parse_args()
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        publish(options, [], {"every page": "chromium is not on PATH (apt-get install chromium)"})
        return
    url = f"http://127.0.0.1:{options.port}/"
    token = secrets.token_hex(32)
    settings = {
        "learning.pretrain_steps": 0,
        "learning.online": "false",
        "data.simulation.speed": options.speed,
        "ray.dashboard": "true",
    }
    # Ray's sockets are below it, and their paths may not be long.
    with tempfile.TemporaryDirectory(prefix="page-") as folder:
        command = [sys.executable, "-m", "trading", "up", "--port", str(options.port)]
        for key, value in {"paths.state_dir": folder, **settings}.items():
            command += ["--set", f"{key}={value}"]
        environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        output = Path(folder) / "output.log"
        with output.open("wb") as log:
            application = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        try:
            wait_ready(url.rstrip("/"), application)
            wait_for_bars(url, options.bars, application)
            peer = re.search(r"Ray's dashboard:\s+(http://[\d.:]+)", output.read_text())
            if peer is None:
                sys.exit("the application does not say where Ray's dashboard is")
            seen = {OURS: (url, {}), PEER: (peer[1], {"authorization": f"Bearer {token}"})}
            told = sent(url)
            publish(options, [painted(program, seen, options.rounds), told])
        finally:
            application.terminate()
            application.wait(180)


def wait_for_bars(url: str, bars: int, application: "subprocess.Popen[bytes]") -> None:
    """Until so many bars of a session have closed, or it has ended."""
    deadline = monotonic() + SESSION_S
    most = 0
    while application.poll() is None and monotonic() < deadline:
        found = len(whole(url)[1].get("day", {}).get("bars", {}))
        if found >= bars or found < most:
            return
        most = found
        sleep(0.2)
    sys.exit(f"the session did not come to {bars} bars; it has {most}")


def whole(url: str, packed: bool = True) -> tuple[int, dict[str, Any]]:
    """Bytes on the wire of the first event that holds everything, and what it holds."""
    request = urllib.request.Request(f"{url}events")
    if packed:
        request.add_header("accept-encoding", "gzip")
    unpack = zlib.decompressobj(wbits=31) if packed else None
    taken, text = 0, b""
    with urllib.request.urlopen(request, timeout=60) as response:
        while True:
            chunk = response.read1(65_536)
            taken += len(chunk)
            text += unpack.decompress(chunk) if unpack else chunk
            if found := re.search(rb"^event: whole\nid: .*\ndata: (.*)\n\n", text, re.MULTILINE):
                return taken, msgspec.json.decode(found[1])


def sent(url: str) -> Figures:
    """What a viewer is sent when the page opens."""
    table = Figures("what /events sends first", SENT)
    for name, packed in (("as a browser asks (gzip)", True), ("without compression", False)):
        taken, content = whole(url, packed)
        told, size = content["day"], len(msgspec.json.encode(content))
        table.add(name, len(told["bars"]), len(told["fills"]), taken / 1000, size / 1000)
    return table


def painted(program: str, pages: Mapping[str, tuple[str, dict[str, str]]], rounds: int) -> Figures:
    """Open each page in turns; medians, once with an empty cache and once with a full one."""
    from playwright.sync_api import sync_playwright

    found: dict[str, list[Opened]] = defaultdict(list)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        version = browser.version
        for _ in range(rounds):
            for name, (url, headers) in pages.items():
                context = browser.new_context(
                    viewport={"width": 1400, "height": 900}, extra_http_headers=headers
                )
                for how in ("first time", "again"):
                    found[f"{name}, {how}"].append(opened(context, url, DRAWN[name]))
                context.close()
        browser.close()
    title = f"{processor()}, {len(os.sched_getaffinity(0))} cores, Chromium {version}"
    note = (
        f"Medians of {rounds} rounds. *Drawn*: until what it is about stands there; *processor*: "
        "of the thread that runs the page, until then, which a busy machine does not lengthen."
    )
    table = Figures("opened", PAINTED, title=title, note=note)
    for name, all_of_it in found.items():
        table.add(name, *map(statistics.median, zip(*(o.cells() for o in all_of_it), strict=True)))
    return table


def opened(context: Any, url: str, drawn: str) -> Opened:
    """Open a page and return what it took until it was drawn."""
    told = Opened()
    page = context.new_page()
    wire = context.new_cdp_session(page)

    def received(event: dict[str, Any]) -> None:
        told.sent[event["requestId"]] += event["encodedDataLength"]
        told.unpacked += event["dataLength"]

    def headed(event: dict[str, Any]) -> None:
        if not event["response"].get("fromDiskCache"):
            told.sent[event["requestId"]] += event["response"]["encodedDataLength"]

    wire.on("Network.dataReceived", received)
    wire.on("Network.responseReceived", headed)
    wire.send("Network.enable")
    wire.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(url, wait_until="commit")
    page.wait_for_selector(drawn, timeout=60_000)
    told.drawn_ms = page.evaluate("performance.now()")
    figures = wire.send("Performance.getMetrics")["metrics"]
    told.processor_ms = 1000 * {each["name"]: each["value"] for each in figures}["TaskDuration"]
    told.paint_ms = page.evaluate(
        "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN"
    )
    page.close()
    return told


if __name__ == "__main__":
    main()
