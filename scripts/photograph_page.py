"""Take the pictures of docs/serve.md: `mcss serve` in headless Chromium, at the width of a desktop and of a phone.

    python scripts/photograph_page.py CAPTURE VIDEO VIDEO --out docs/images

This needs the package playwright and a Chromium: Debian's (`apt install chromium`), or `playwright install chromium`.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """Run a server until the block ends, and give its address."""
    command = [str(Path(sys.executable).with_name("mcss")), "serve", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if found := re.search(r"http://\S+", line):
                    yield found[0]
                    return
            raise SystemExit("the server does not start; see above")
        finally:
            process.terminate()


def photograph(page: Page, path: Path) -> None:
    """Take a picture of the whole page in its current state, from its top."""
    page.wait_for_load_state("networkidle")
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=path, full_page=True, type="jpeg", quality=82)


def settle(page: Page, button: str = "#as-seen") -> None:
    """Stop the skeleton's rotation at an angle that differs a little from the camera's."""
    page.locator(button if page.locator(button).is_visible() else "#front").click()
    page.focus("#skeleton")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.locator("#skeleton").blur()


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("capture", "first", "second"):
        parser.add_argument(name)
    parser.add_argument("--run", help="by default the weights shipped with mcss")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--images", default="6000")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    run = [] if options.run is None else ["--run", options.run]
    with (
        serving(*run, "--capture", options.capture, "--images", options.images) as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"), args=["--no-sandbox"]
        )
        for name, size in (("desktop", DESKTOP), ("phone", PHONE)):
            page = browser.new_page(viewport=size, has_touch=name == "phone", device_scale_factor=1)
            page.goto(address)
            page.locator("#samples-strip img").first.wait_for()
            photograph(page, options.out / f"serve_start_{name}.jpg")
            page.set_input_files("#file", options.first)
            page.locator("#grid .hit").first.wait_for(timeout=120_000)
            page.locator("#time").fill(str(int(page.locator("#time").get_attribute("max") or 0) // 3))
            settle(page)
            page.locator("#grid:not(.stale)").wait_for()
            photograph(page, options.out / f"serve_video_{name}.jpg")
            page.locator("#home").click()
            page.locator("#samples-strip button").nth(6).click()
            page.locator("#grid .hit > button").first.click()
            page.locator("#trail li").nth(1).wait_for()
            page.locator("#grid:not(.stale)").wait_for()
            settle(page, "#front")
            photograph(page, options.out / f"serve_neighbour_{name}.jpg")
            page.locator("#tab-compare").click()
            page.set_input_files("#file-a", options.first)
            page.set_input_files("#file-b", options.second)
            page.locator("#worst .bar-row").first.wait_for(timeout=120_000)
            page.locator("#compare-time").fill(str(int(page.locator("#compare-time").get_attribute("max") or 0) // 2))
            page.focus("#both")
            page.keyboard.press("ArrowRight")
            page.locator("#both").blur()
            photograph(page, options.out / f"serve_compare_{name}.jpg")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
