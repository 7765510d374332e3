"""Tests of the page of a half-done study's other half in a browser: width and accessibility."""

import pytest

from checkout import ROOT
from foretune.analysis.study_tables import StudyFiles, tabulate_tasks
from foretune.forecast.pairs import forecast_pairs
from foretune.report.pairs_page import build_pairs_page
from report_browser import check_accessibility, opened


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """The page of published accuracies, of which LoRA has 8 of 20."""
    folder = tmp_path_factory.mktemp("pairs")
    csv = ROOT / "resources/public/outcomes.csv"
    study = tabulate_tasks(StudyFiles([], [], [], [], [], outcomes=csv))
    tables = forecast_pairs(study, [("clip_b16", "lora")], sorted(study.tasks.dataset.unique()))
    for name in ("pairs", "pair_candidates"):
        getattr(tables, name).to_parquet(folder / f"{name}.parquet")
    build_pairs_page(folder, folder / "pairs.html")
    return folder / "pairs.html"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (375, "dark")])
def test_pairs_page_passes_axe_and_does_not_overflow(browser, page_file, width, scheme):
    view = {"width": width, "height": 900}
    with opened(browser, page_file, viewport=view, color_scheme=scheme) as page:
        page.wait_for_selector("#table-candidates td")
        assert page.locator("#table-pairs tbody tr").count() > 10
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        check_accessibility(page)
