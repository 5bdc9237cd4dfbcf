"""Takes the README's picture of the main job: what `trading up` shows just before it stops.

    pip install pyte
    python scripts/picture_terminal.py 75

trades the default simulated market for 75 seconds in a terminal of its own, with a state folder
that is gone afterwards, and writes `docs/images/terminal.png`. It needs chromium on PATH and port
8000.
"""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "terminal.png"
COLUMNS, LINES = 100, 40
_STOPPING = "· stopping".encode()


def last_frame(command: list[str]) -> pyte.Screen:
    """The screen of a terminal in which a command runs, as it is before the command stops.

    Raises
    ------
    CalledProcessError
        The command failed.
    """
    # Of faint text pyte knows nothing: it is noted as blinking, which nothing here does.
    pyte.graphics.TEXT[2] = "+blink"
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    running = True
    while output := _read(ours):
        if running:
            before, stopping, _ = output.partition(_STOPPING)
            stream.feed(before)
            running = not stopping
    os.close(ours)
    if process.wait():
        print("\n".join(screen.display), file=sys.stderr)
        raise subprocess.CalledProcessError(process.returncode, command)
    return screen


def _read(terminal: int) -> bytes:
    """Some output; nothing once the command has ended, which Linux reports as an error."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""


def as_text(screen: pyte.Screen) -> Text:
    """The screen's characters in their styles, without the empty lines at its end."""
    text = Text()
    for row in range(LINES):
        for column in range(COLUMNS):
            cell = screen.buffer[row][column]
            text.append(cell.data, Style(color=_color(cell.fg), bold=cell.bold, dim=cell.blink))
        text.append("\n")
    text.rstrip()
    return text


def _color(name: str) -> str | None:
    """A colour of pyte as rich calls it."""
    if name == "default":
        return None
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    return name.replace("brown", "yellow").replace("bright", "bright_")


def write_picture(text: Text, path: Path) -> None:
    """A PNG of the text in a window."""
    with open(os.devnull, "w") as nothing, tempfile.TemporaryDirectory() as folder:
        console = Console(record=True, width=COLUMNS, file=nothing, force_terminal=True)
        console.print(text)
        svg = console.export_svg(title="trading up", theme=MONOKAI)
        page = Path(folder) / "terminal.html"
        page.write_text(f"<body style='margin:0'>{svg}</body>")
        width, height = (float(n) for n in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0])
        subprocess.run(
            [
                *("chromium", "--headless", "--no-sandbox", "--hide-scrollbars"),
                f"--user-data-dir={folder}",
                f"--window-size={round(width)},{round(height)}",
                f"--screenshot={path}",
                page.as_uri(),
            ],
            check=True,
            capture_output=True,
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as state:
        duration = ("--duration", sys.argv[1])
        up = [sys.executable, "-m", "trading", "up", *duration, "--set", f"paths.state_dir={state}"]
        frame = last_frame(up)
    write_picture(as_text(frame), PICTURE)
