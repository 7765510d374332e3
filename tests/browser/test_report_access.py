"""Whom the report reaches: light and dark, phone and paper, keyboard and screen reader."""

import json

import pytest
from axe_playwright_python.sync_playwright import Axe

from foretune.report.build import build_report
from report_browser import contrast, opened
from report_study import NAMES, add_forecast, make_study

MEDIA = [
    {"color_scheme": "light"},
    {"color_scheme": "dark"},
    {"color_scheme": "dark", "media": "print"},
]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Everything that a report can have, with long names."""
    folder = tmp_path_factory.mktemp("study")
    names = [f"{name}-with-a-rather-long-name" for name in NAMES]
    classes = [f"{name} with a rather long name" for name in "abcdefgh"]
    study = make_study(
        folder, names=names, methods=("full", "lora", "linear_probe"), classes=classes
    )
    add_forecast(folder, study)
    build_report(**study, output=folder / "report.html", title="A study")
    return folder / "report.html"


def open_all(page) -> None:
    page.evaluate(
        """document.querySelectorAll('details').forEach((each, i) => { each.open = i % 4 < 2; })"""
    )
    page.evaluate("document.querySelector('#trade_off figcaption button').click()")  # its numbers
    page.wait_for_timeout(1000)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (375, "dark")])
def test_axe_finds_nothing_serious(browser, report, scheme, width):
    view = {"width": width, "height": 900}
    with opened(browser, report, viewport=view, color_scheme=scheme) as page:
        open_all(page)
        found = Axe().run(page).response["violations"]
        serious = {
            each["id"]: [node["html"][:200] for node in each["nodes"][:3]]
            for each in found
            if each["impact"] in ("serious", "critical")
        }
        assert serious == {}, json.dumps(serious, indent=1)


def test_figures_are_legible_in_light_dark_and_print(browser, report):
    seen = set()
    with opened(browser, report) as page:
        for media in MEDIA:
            page.emulate_media(**media)
            assert contrast(page, "#matrix .role-axis-label text") > 7, media
            assert contrast(page, "#scatter .mark-symbol path") > 3, media
            assert contrast(page, ".faint", "color") > 4.5, media
            seen.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(seen) == 2  # paper is white, however dark the screen


@pytest.mark.parametrize(("width", "media"), [(375, "screen"), (1280, "screen"), (794, "print")])
def test_nothing_overflows(browser, report, width, media):
    with opened(browser, report, viewport={"width": width, "height": 900}) as page:
        page.emulate_media(media=media)
        open_all(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_matrix_on_a_phone_has_room_for_its_numbers(browser, report):
    with opened(browser, report, viewport={"width": 375, "height": 800}) as page:
        page.evaluate("location.hash = 'dataset-0'")
        page.wait_for_selector("#dataset-0[open] #confusion-0-zero svg")
        for figure in ("matrix", "confusion-0-zero"):
            cell = page.locator(f"#{figure} .mark-rect path").first.bounding_box()
            assert cell["width"] > 30, figure


def test_on_paper_everything_is_open_and_no_button_is_left(browser, report):
    with opened(browser, report) as page:
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.wait_for_selector("#task-8 svg", state="attached", timeout=120_000)
        page.emulate_media(media="print")
        assert page.locator("details:not([open])").count() == 0
        assert page.locator("nav").is_hidden() and page.locator("[data-csv]").first.is_hidden()
        assert page.locator("#table-results th").first.is_visible()
        # A long table is cut and says so, a wide one is left to the page.
        assert page.locator("#table-results tbody tr:visible").count() == 25
        assert page.locator("[data-table=results] .on-paper").is_visible()
        assert page.locator("#table-statistics").is_hidden()


def test_the_keyboard_reaches_every_list_table_and_page(browser, report):
    with opened(browser, report) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        reached = page.evaluate(
            """() => [...document.querySelectorAll(
                'select, input, .rows, summary, th button, [data-csv], figcaption button, .strip')]
                .filter(each => each.checkVisibility() && each.tabIndex < 0)
                .map(each => each.outerHTML)"""
        )
        assert reached == []
        page.locator("#dataset-0 summary").focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("#dataset-0[open]")
        page.locator("#prediction [data-param=measure]").focus()
        page.keyboard.press("ArrowDown")
        page.wait_for_function("() => state.measure === 'modality_gap'")
