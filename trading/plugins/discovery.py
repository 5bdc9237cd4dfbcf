"""Imports the files and packages that register plug-ins; a file again once it has changed."""

import hashlib
import importlib.util
import io
import linecache
import sys
from collections.abc import Iterable
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from trading.config import Settings
from trading.errors import PluginError
from trading.plugins.plugin_registry import REGISTRY, Registry, error_in

GROUP = "trading.plugins"
"""Of the entry points by which installed packages tell of their modules."""

_loaded: dict[str, str] = {}
"""What was imported: a file with the digest of its contents, or a module of a package."""


def load_plugins(settings: Settings) -> Registry:
    """Everything that installed packages and the files of `plugins` register, see `load_files`."""
    return load_files(settings.plugins)


def load_files(files: Iterable[Path]) -> Registry:
    """Everything that installed packages and these files register.

    Raises
    ------
    PluginError
        A file is not there, or one of them fails or registers what cannot be; nothing of that
        one stays registered.
    """
    for entry in entry_points(group=GROUP):
        _load_entry(entry)
    for path in files:
        _load_file(path.resolve())
    return REGISTRY


def _load_entry(entry: EntryPoint) -> None:
    if entry.value in _loaded:
        return
    package = entry.dist.name if entry.dist is not None else "an installed package"
    try:
        entry.load()
    except (Exception, SystemExit) as error:
        REGISTRY.forget(entry.module)
        sys.modules.pop(entry.module, None)
        raise PluginError(
            f"the plug-in {entry.name} ({entry.value}) of {package} failed{error_in(error, '')}: "
            "mend that package, or uninstall it"
        ) from error
    _loaded[entry.value] = ""


def _load_file(path: Path) -> None:
    if not path.is_file() or path.suffix != ".py":
        wrong = "is no Python file (.py)" if path.is_file() else "there is no such file"
        raise PluginError(
            f"plugins: {path}: {wrong}; name an existing one, which each machine that trades has "
            "at this place"
        )
    name = f"trading_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    before = _loaded.pop(str(path), None)
    if before == digest:
        _loaded[str(path)] = digest
        return
    if before is not None:
        # It was edited since, as between two cells of a notebook.
        _unload(name)
    loader = SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None, "it has a loader"
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    _keep_text(path, content)
    try:
        # Of what was read: bytecode kept beside a file may be of what it was a second ago.
        exec(loader.source_to_code(content, str(path)), module.__dict__)
    except PluginError as error:
        _unload(name)
        raise PluginError(f"plugins: {error}") from error.__cause__
    except (Exception, SystemExit) as error:
        _unload(name)
        raise PluginError(
            f"plugins: {path} failed when it was imported,{error_in(error, str(path))}: mend it, "
            "or take it out of plugins"
        ) from error
    _loaded[str(path)] = digest


def _keep_text(path: Path, content: bytes) -> None:
    """Let the text of its functions be that of what was read, also once the file is another one."""
    try:
        lines = io.StringIO(importlib.util.decode_source(content)).readlines()
    except (SyntaxError, UnicodeDecodeError):
        return  # What it is compiled for fails likewise, and tells.
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    # No time of change: `linecache.checkcache` leaves it as it is.
    linecache.cache[str(path)] = (len(content), None, lines, str(path))


def _unload(name: str) -> None:
    REGISTRY.forget(name)
    del sys.modules[name]
