"""Takes the pictures of the page: `docs/images/page.png`, or `strategies.png` of several.

    python scripts/picture_page.py [http://127.0.0.1:8000/]

Wants an application that has traded for a while, and chromium on PATH.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parents[1] / "docs" / "images"
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
        page.wait_for_selector(".uplot", timeout=120_000)
        if page.locator(".strategy").count():
            page.set_viewport_size(SIZE | {"height": 600})
            page.screenshot(path=IMAGES / "strategies.png", full_page=True)
        else:
            page.wait_for_selector("#positions tr.leg", timeout=120_000)
            page.screenshot(path=IMAGES / "page.png")
        browser.close()


if __name__ == "__main__":
    main()
