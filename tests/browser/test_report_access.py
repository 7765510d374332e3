"""Tests of the report's accessibility: colour schemes, phone, print, keyboard, screen reader."""

import pytest

from forecast_tables import add_forecast
from foretune.report.build import build_report
from report_browser import check_accessibility, measure_contrast, opened
from report_study import NAMES, make_study

MEDIA = [
    {"color_scheme": "light"},
    {"color_scheme": "dark"},
    {"color_scheme": "dark", "media": "print"},
]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report with all of its parts, with long names and more results than are printed."""
    folder = tmp_path_factory.mktemp("study")
    names = [f"{name}-with-a-rather-long-name" for name in NAMES[:5]]
    classes = [f"{name} with a rather long name" for name in "abcdefgh"]
    methods = ("full", "lora", "bitfit", "attention", "flyp", "linear_probe")
    study = make_study(folder, names=names, methods=methods, classes=classes)
    add_forecast(folder, study)
    build_report(**study, output=folder / "report.html", title="A study")
    return folder / "report.html"


def open_details(page) -> None:
    """Open every other pair of details and the numbers of a figure."""
    page.evaluate(
        """document.querySelectorAll('details').forEach((details, i) => {
            details.open = i % 4 < 2; })"""
    )
    page.evaluate("document.querySelector('#trade_off figcaption button').click()")
    page.wait_for_timeout(1000)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (375, "dark")])
def test_report_passes_axe_and_does_not_overflow(browser, report, scheme, width):
    view = {"width": width, "height": 900}
    with opened(browser, report, viewport=view, color_scheme=scheme) as page:
        open_details(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        check_accessibility(page)
        # There is room for the numbers, on a phone too.
        page.evaluate("location.hash = 'dataset-0'")
        page.wait_for_selector("#dataset-0[open] #confusion-0-zero svg")
        for figure in ("matrix", "confusion-0-zero"):
            cell = page.locator(f"#{figure} .mark-rect path").first.bounding_box()
            assert cell["width"] > 30, figure


def test_report_is_legible_in_light_dark_and_print_and_does_not_overflow(browser, report):
    backgrounds = set()
    with opened(browser, report, viewport={"width": 794, "height": 900}) as page:
        for media in MEDIA:
            page.emulate_media(**media)
            assert measure_contrast(page, "#matrix .role-axis-label text") > 7, media
            assert measure_contrast(page, "#scatter .mark-symbol path") > 3, media
            assert measure_contrast(page, ".faint", "color") > 4.5, media
            backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert len(backgrounds) == 2  # print is white even in the dark colour scheme
        open_details(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 794


def test_print_opens_everything_and_hides_buttons(browser, report):
    with opened(browser, report) as page:
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.wait_for_selector("#task-4 svg", state="attached", timeout=120_000)
        page.emulate_media(media="print")
        assert page.locator("details:not([open])").count() == 0
        assert page.locator("nav").is_hidden() and page.locator("[data-csv]").first.is_hidden()
        assert page.locator("#table-results th").first.is_visible()
        # A long table is cut and has a note; a wide one is not printed.
        assert page.locator("#table-results tbody tr:visible").count() == 25
        assert page.locator("[data-table=results] .on-paper").is_visible()
        assert page.locator("#table-statistics").is_hidden()


def test_keyboard_reaches_every_control(browser, report):
    with opened(browser, report) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        unreachable = page.evaluate(
            """() => [...document.querySelectorAll(
                'select, input, .rows, summary, th button, [data-csv], figcaption button, .strip')]
                .filter(control => control.checkVisibility() && control.tabIndex < 0)
                .map(control => control.outerHTML)"""
        )
        assert unreachable == []
        page.locator("#dataset-0 summary").focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("#dataset-0[open]")
        page.locator("#prediction [data-param=measure]").focus()
        page.keyboard.press("ArrowDown")
        page.wait_for_function("() => state.measure === 'modality_gap'")
