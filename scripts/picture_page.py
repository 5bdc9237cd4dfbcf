"""Takes the picture of the page: `docs/images/page.png`.

    python scripts/picture_page.py [http://127.0.0.1:8000/]

Wants an application that has traded for a while, and chromium on PATH.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "page.png"
SIZE = {"width": 1360, "height": 1280}


def main() -> None:
    address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/"
    program = shutil.which("chromium")
    if program is None:
        sys.exit("chromium is not on PATH: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        page.goto(address)
        page.wait_for_selector("#equity .uplot", timeout=120_000)
        page.wait_for_selector("#positions tr.leg", timeout=120_000)
        page.screenshot(path=PICTURE)
        browser.close()


if __name__ == "__main__":
    main()
