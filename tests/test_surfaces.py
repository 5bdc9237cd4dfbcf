"""Every package says what of it is public; importing it loads none of that."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(
    ".".join(file.parent.relative_to(ROOT).parts) for file in ROOT.glob("trading/*/**/__init__.py")
)


@pytest.mark.parametrize("name", PACKAGES)
def test_what_a_package_names_is_there(name: str) -> None:
    package = import_module(name)
    assert package.__doc__
    public = package.__all__
    assert public and len(set(public)) == len(public)
    modules = {file.stem for file in Path(package.__path__[0]).iterdir()}
    for each in public:
        # A name that a module has too would be the one or the other by what was imported before.
        assert each not in modules
        assert getattr(package, each) is not None
        assert each in dir(package)
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'absent'"):
        _ = package.absent


def test_importing_every_package_loads_nothing_heavy() -> None:
    code = f"import sys; [__import__(name) for name in {PACKAGES}]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded & {"numba", "pandas", "pyarrow", "ray", "rich", "torch", "websockets"} == set()
