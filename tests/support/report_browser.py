"""Helpers that open a report in a browser and read what it shows."""

import json
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from axe_playwright_python.sync_playwright import Axe


@contextmanager
def opened(browser, path: Path, drawn="html[data-drawn]", quiet=True, **options):
    """Open a page and close it in the end; check that it requests nothing but its own file.

    drawn: selector that exists once everything is drawn; quiet: whether errors and warnings in
    the console fail the test; options: of the browser's `new_page`.
    """
    page = browser.new_page(**options)
    errors, requests = [], []
    page.on("console", lambda m: m.type in ("error", "warning") and errors.append(m.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri(), timeout=120_000)  # the machine may be busy
    page.wait_for_selector(drawn, state="attached", timeout=120_000)
    page.set_default_timeout(60_000)
    yield page
    page.close()
    assert errors == [] or not quiet
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [path.as_uri()]


def check_accessibility(page) -> None:
    """Fail if axe-core finds a serious or critical violation of the accessibility rules."""
    serious = {
        violation["id"]: [node["html"][:200] for node in violation["nodes"][:3]]
        for violation in Axe().run(page).response["violations"]
        if violation["impact"] in ("serious", "critical")
    }
    assert serious == {}, json.dumps(serious, indent=1)


def count_marks(page, figure: str) -> int:
    """Return how many visible marks a figure has, that is, marks with an extent."""
    return page.eval_on_selector_all(
        f"#{figure} .chart svg :is(.mark-rect, .mark-symbol, .mark-line) path",
        """all => all.filter(mark => mark.getBBox().width + mark.getBBox().height > 0).length""",
    )


def measure_contrast(page, selector: str, ink: str = "fill") -> float:
    """Return the WCAG contrast of an element's colour, a CSS property, with the page."""
    colours = page.evaluate(
        """([s, ink]) => [getComputedStyle(document.querySelector(s))[ink],
                          getComputedStyle(document.body).backgroundColor]""",
        [selector, ink],
    )
    luminances = []
    for colour in colours:
        rgb = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        luminances.append(float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)
    return max(luminances) / min(luminances)
