"""Keeps compiled kernels apart by the source they came from.

Numba's cache watches only the file of the outermost kernel. A kernel that calls one of another
module would go on with old machine code after that module changed. So the cache lives in a folder
named after a digest of all kernel sources; it may be deleted at any time.
"""

import hashlib
import os
import sys
import tempfile
from pathlib import Path

_KERNEL_PACKAGES = ("market", "execution", "envs", "learning/kernels")


def use_cache_of_this_source() -> None:
    """Point numba to the cache of this version, unless NUMBA_CACHE_DIR names another place.

    It lies in the user's cache folder, or in the temporary one where that cannot be written.
    """
    if "NUMBA_CACHE_DIR" in os.environ:
        return
    package = Path(__file__).parent
    digest = hashlib.sha256(sys.version.encode())
    for name in _KERNEL_PACKAGES:
        for file in sorted((package / name).glob("*.py")):
            digest.update(file.name.encode())
            digest.update(file.read_bytes())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path("trading") / "kernels" / digest.hexdigest()[:16]
    for base in (home, Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"):
        try:
            (base / folder).mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        os.environ["NUMBA_CACHE_DIR"] = str(base / folder)
        return
