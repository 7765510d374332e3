"""Tests of the forecast page in a browser: figures, colour schemes, phone, accessibility."""

import numpy as np
import pytest

from forecast_tables import make_forecast
from foretune.report.forecast_page import build_forecast_page
from report_browser import check_accessibility, count_marks, opened
from report_study import EVIL, make_dataset


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A forecast page of a dataset with long names."""
    folder = tmp_path_factory.mktemp("forecast")
    classes = [f"{name} with a rather long name" for name in ("red", EVIL, "blue")]
    dataset = make_dataset(folder, "birds-of-a-long-name", np.random.default_rng(0), classes)
    paths = make_forecast(folder, [dataset.parent])
    build_forecast_page(**paths)
    return paths["output"]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (375, "dark")])
def test_forecast_page_passes_axe_and_does_not_overflow(browser, page_file, width, scheme):
    view = {"width": width, "height": 900}
    with opened(browser, page_file, viewport=view, color_scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        page.wait_for_selector("#table-classes-0 td")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        check_accessibility(page)


def test_forecast_page_draws_its_figures(browser, page_file):
    with opened(browser, page_file) as page:
        assert count_marks(page, "expected-0") == 4 * 2  # a point and a tick for each run
        assert count_marks(page, "learning-0") == 8 + 2 + 2  # points, lines, and their key
        assert count_marks(page, "place-0") == 12 + 1
        images = page.locator(".both img, .doubtful img")
        assert images.count() > 6
        # Images further down are loaded when they are near.
        images.last.scroll_into_view_if_needed()
        page.wait_for_function("() => [...document.images].at(-1).naturalWidth > 0")
        page.locator("select[data-param=outcome]").select_option("ood_change")
        # The probe has no change on other tasks.
        page.wait_for_function(
            "() => document.querySelectorAll('#expected-0 .mark-symbol path').length === 3"
        )
        page.locator("#choices-0 ~ details summary").first.click()
        page.wait_for_selector("#table-candidates-0 td")
