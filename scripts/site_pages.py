"""For `mkdocs build`: what pages of `docs/` link to outside of that folder comes along.

A page (`../infra/k8s/README.md`) becomes a page of the site below `repository/`, any other file is
copied there, and a link to a folder leads to its README, or becomes text where it has none.
"""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#|//)([^)#\s]+)(#[^)\s]*)?\)")
_WITHIN = Path("repository")


def on_files(files: Files, config: Any) -> Files:
    """Add what is linked outside of the folder, and what that links to in turn."""
    root = Path(config.docs_dir).parent
    known = {file.src_uri for file in files}
    to_read = [Path(file.abs_src_path) for file in files.documentation_pages()]
    while to_read:
        page = to_read.pop()
        for found in _LINK.finditer(page.read_text()):
            there = _target(page, found[3])
            uri = _uri(root, there)
            if not there.is_file() or uri in known:
                continue
            known.add(uri)
            files.append(File.generated(config, uri, abs_src_path=str(there)))
            if there.suffix == ".md":
                to_read.append(there)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links as they are within the site."""
    root = Path(config.docs_dir).parent
    source = Path(page.file.abs_src_path)

    def within(found: re.Match[str]) -> str:
        there = _target(source, found[3])
        if there.is_dir():
            return found[2]
        here = Path(page.file.src_uri).parent
        path = os.path.relpath(_uri(root, there), here)
        return f"{found[1]}[{found[2]}]({path}{found[4] or ''})"

    return _LINK.sub(within, markdown)


def _target(page: Path, link: str) -> Path:
    there = Path(os.path.normpath(page.parent / link))
    return there / "README.md" if (there / "README.md").is_file() else there


def _uri(root: Path, file: Path) -> str:
    """Where a file of the repository is in the site."""
    docs = root / "docs"
    if file.is_relative_to(docs):
        return file.relative_to(docs).as_posix()
    return (_WITHIN / file.relative_to(root)).as_posix()
