"""Which addresses processes listen on, as the kernel tells."""

import contextlib
import ipaddress
import os
import struct
from pathlib import Path

_LISTENING = "0A"


def descendants(process: int) -> set[int]:
    """Ids of a process and of all that it, or they, started."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
    found = {process}
    while more := {each for each, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def listeners(processes: set[int]) -> set[tuple[str, int]]:
    """Addresses and ports on which any of these processes accepts TCP connections."""
    sockets = {}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING:
                sockets[f"socket:[{fields[9]}]"] = _address(fields[1])
    found = set()
    for process in processes:
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(OSError):
                    address = sockets.get(os.readlink(descriptor))
                    if address is not None:
                        found.add(address)
    return found


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches it."""
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def _address(text: str) -> tuple[str, int]:
    host, port = text.split(":")
    words = [int(host[i : i + 8], 16) for i in range(0, len(host), 8)]
    raw = b"".join(struct.pack("=I", word) for word in words)
    return str(ipaddress.ip_address(raw)), int(port, 16)
