"""Keeps compiled kernels apart by the source they came from.

Numba's cache watches only the file of the outermost kernel. A kernel that calls one of another
module would go on with old machine code after that module changed. So the cache lives in a folder
named after a digest of all kernel sources; it may be deleted at any time.
"""

import hashlib
import os
import sys
from pathlib import Path

_KERNEL_PACKAGES = ("market", "execution", "envs")


def use_cache_of_this_source() -> None:
    """Point numba to the cache of this version, unless NUMBA_CACHE_DIR names another place."""
    if "NUMBA_CACHE_DIR" in os.environ:
        return
    package = Path(__file__).parent
    digest = hashlib.sha256(sys.version.encode())
    for folder in _KERNEL_PACKAGES:
        for file in sorted((package / folder).glob("*.py")):
            digest.update(file.name.encode())
            digest.update(file.read_bytes())
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ["NUMBA_CACHE_DIR"] = str(base / "trading" / "kernels" / digest.hexdigest()[:16])
