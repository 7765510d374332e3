"""Tests of the report's figures and tables in a real browser."""

import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from forecast_tables import add_forecast
from foretune.analysis.outcomes import GAIN
from foretune.core.parquet import write_parquet
from foretune.report.build import build_report
from report_browser import count_marks, opened
from report_study import (
    EVIL,
    MEASURES,
    NAMES,
    add_shifted_test,
    build,
    make_study,
    unpack,
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report on five datasets with forecasts of two others."""
    folder = tmp_path_factory.mktemp("study")
    study = make_study(folder, names=NAMES[:5])
    add_forecast(folder, study)
    build_report(**study, output=folder / "report.html", title="A <study>")
    return folder / "report.html"


@pytest.fixture(scope="module")
def page(browser, report):
    """A page for tests that leave it as it was, or change only what no other test looks at."""
    with opened(browser, report) as page:
        yield page


@pytest.fixture
def own_page(browser, report):
    with opened(browser, report) as page:
        yield page


def get_axis_titles(page, figure: str) -> list[str]:
    """Return the axis titles of a figure."""
    return page.locator(f"#{figure} .role-axis-title text").all_text_contents()


def test_report_draws_every_figure_and_shows_its_numbers(own_page):
    own_page.evaluate(
        "document.querySelectorAll('details').forEach(details => { details.open = true; })"
    )
    own_page.wait_for_function(
        """() => [...document.querySelectorAll('figure')].every(
            figure => figure.querySelector('svg') || /No data|-zero/.test(figure.textContent))"""
    )
    kinds = own_page.eval_on_selector_all("figure", "all => all.map(figure => figure.dataset.kind)")
    assert set(kinds) == {
        "scatter", "ranking", "matrix", "trade_off", "epochs", "convergence", "evidence",
        "task", "confusion", "expected", "shots",
    }  # fmt: skip
    assert kinds.count("task") == 5 and kinds.count("confusion") == 10
    ids = own_page.eval_on_selector_all("[id]", "all => all.map(element => element.id)")
    assert len(ids) == len(set(ids))
    empty = own_page.eval_on_selector_all(
        "figure",
        "all => all.filter(figure => !figure.querySelector('svg')).map(figure => figure.id)",
    )
    assert empty == []
    labels = own_page.eval_on_selector_all(
        "figure svg[role=img]", "all => all.map(svg => svg.getAttribute('aria-label'))"
    )
    assert labels and all(labels)
    assert (
        count_marks(own_page, "matrix") == 6 * 5
    )  # rows: zero-shot and five datasets; columns: five datasets
    assert count_marks(own_page, "confusion-0-zero") == 9  # three classes
    legend = own_page.locator("#convergence .role-legend-label text").all_text_contents()
    assert sorted(legend) == sorted(NAMES[:5])
    # Every figure shows its numbers.
    buttons = own_page.locator("figcaption button").count()
    own_page.evaluate("document.querySelectorAll('figcaption button').forEach(b => b.click())")
    assert own_page.locator("figure .data table").count() == buttons > 0
    heads = own_page.locator("#matrix-numbers th, #table-matrix-numbers th").all_text_contents()
    assert heads[:3] == ["evaluated on", "trained on", "accuracy"]


def test_lists_select_what_figures_show(own_page):
    assert get_axis_titles(own_page, "scatter") == ["iimm", "gain over zero-shot error"]
    note = own_page.locator("#scatter .note")
    before = note.text_content()
    assert "Spearman’s ρ" in before and "permutation p" in before
    own_page.select_option("#prediction [data-param=outcome]", "ood_change")
    own_page.wait_for_function(
        "before => document.querySelector('#scatter .note').textContent !== before", arg=before
    )
    assert get_axis_titles(own_page, "scatter") == ["iimm", "change on other tasks"]
    own_page.select_option("#prediction [data-param=measure]", "modality_gap")
    own_page.wait_for_function(
        "() => document.querySelector('#scatter .note').textContent.includes('the same')"
    )
    # All lists of a parameter show the same choice, and the matrix follows the method.
    own_page.select_option("#accuracy [data-param=method]", "linear_probe")
    own_page.wait_for_function(
        "() => document.querySelector('#prediction [data-param=method]').value === 'linear_probe'"
    )
    own_page.wait_for_function(
        "() => /No data for this selection/.test(document.querySelector('#scatter').textContent)"
    )
    # A linear probe is tested only on the dataset that it was trained on.
    own_page.wait_for_function(
        "() => document.querySelectorAll('#matrix .mark-rect path').length === 10"
    )
    drawn = own_page.locator("#epochs .mark-line path").first.get_attribute("d")
    own_page.select_option("[data-param=dataset]", "coins")
    own_page.wait_for_function(
        "d => document.querySelector('#epochs .mark-line path')?.getAttribute('d') !== d",
        arg=drawn,
    )


def test_scatter_names_the_point_under_the_pointer(page, report):
    tasks = pd.read_parquet(report.parent / "analysis" / "tasks.parquet")
    point = page.locator("#scatter .mark-symbol path").first
    point.scroll_into_view_if_needed()
    point.hover()
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    texts = dict(zip(*(tooltip.locator(f"td.{part}").all_text_contents()
                       for part in ("key", "value")), strict=True))  # fmt: skip
    task = tasks[(tasks.method == "full") & (tasks.dataset == texts["dataset"])].iloc[0]
    assert texts["iimm"] == f"{task.iimm:.4f}"
    assert texts["gain over zero-shot error"].replace("−", "-") == f"{task[GAIN]:.4f}"
    assert (
        count_marks(page, "scatter") >= 5 + 1
        and page.locator("#scatter .mark-area path").count() == 1
    )


def test_trade_off_has_a_point_per_method_and_the_curve_of_wise_ft(page):
    # Full fine-tuning has a point at coefficients 0.5 and 1, and zero-shot one; a probe has none.
    figure = page.locator("#trade_off")
    assert figure.locator(".mark-symbol.role-mark path").count() == 3
    # One line is the curve of full, and one the front.
    assert figure.locator(".mark-line path").count() == 2
    assert figure.locator(".mark-rule.role-mark line").count() == 4
    assert figure.locator(".role-legend-label text").all_text_contents() == ["full"]
    assert "on the front of the means over 5 datasets" in figure.locator(".note").text_content()


def read_column(page, table: str, key: str) -> list[str]:
    """Return the texts of a column of a table."""
    return page.eval_on_selector(
        f"#table-{table} th[data-key={key}]",
        """head => [...head.closest("table").tBodies[0].rows]
                   .map(row => row.cells[head.cellIndex].textContent)""",
    )


def test_table_sorts_by_a_column(page):
    head = page.locator("#table-results th[data-key=accuracy]")

    def numbers():
        return [float(text.strip("%")) for text in read_column(page, "results", "accuracy")]

    before = numbers()
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert numbers() == sorted(before) != before
    assert head.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert numbers() == sorted(before, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    page.click("#table-results th[data-key=ood_change] button")
    changes = read_column(page, "results", "ood_change")
    assert changes[5:] == ["–"] * 5 and "–" not in changes[:5]
    assert head.get_attribute("aria-sort") is None


def test_table_filters_rows_and_downloads_csv(page, report):
    box = page.locator("[data-table=measures] input")
    box.fill("tiny coin")
    assert read_column(page, "measures", "dataset") == ["coins"]
    assert page.locator("[data-table=measures] [role=status]").text_content() == "1 of 6 rows"
    box.fill("nothing like it")
    assert read_column(page, "measures", "dataset") == []
    box.fill("")
    with page.expect_download() as download:
        page.click("[data-csv=measures]")
    assert download.value.suggested_filename == "measures.csv"
    read = pd.read_csv(download.value.path())
    measured = pd.read_parquet(report.parent / "analysis" / "measures.parquet")
    names = ["model", "dataset", "n_train", *MEASURES, "iimm.low", "iimm.high"]
    pd.testing.assert_frame_equal(read[names], measured[names], check_dtype=False)


def test_table_shows_the_first_rows_of_many(page):
    page.evaluate(
        """() => {
            const host = document.createElement("div");
            document.querySelector("main").append(host);
            const rows = Array.from({length: 250}, (_, value) => ({value}));
            const columns = [{key: "value", label: "value", kind: "plain", beside: []}];
            drawTable(host, "long", "long", columns, rows);
        }"""
    )
    assert len(read_column(page, "long", "value")) == 100
    page.click("#table-long th button")
    page.click("#table-long th button")
    assert (
        read_column(page, "long", "value")[0] == "249"
    )  # all rows are sorted, not only those shown
    page.click("text=Show all 250 rows")
    assert len(read_column(page, "long", "value")) == 250


def test_figure_shows_its_numbers_as_a_table(page):
    button = page.locator("#trade_off figcaption button")
    button.click()
    assert button.get_attribute("aria-expanded") == "true"
    assert read_column(page, "trade_off-numbers", "method") == ["zero_shot", "full", "full"]
    button.click()
    assert page.locator("#trade_off table").count() == 0


def test_dataset_opens_by_its_link(own_page):
    own_page.evaluate("location.hash = 'dataset-2'")
    own_page.wait_for_selector("#dataset-2[open] #confusion-2-tuned svg")
    note = own_page.locator("#confusion-2-tuned .note").text_content()
    assert f"predicted as {EVIL}" in note and "(1 of 4)" in note
    assert own_page.locator("#dataset-2 .strip img").count() == 10
    # It also follows a method that was chosen while it was closed.
    own_page.select_option("#accuracy [data-param=method]", "linear_probe")
    own_page.wait_for_function(
        "() => document.querySelector('#confusion-2-tuned').textContent.includes('linear_probe')"
    )


def test_forecasts_follow_the_selected_outcome(own_page, report):
    forecasts = pd.read_parquet(report.parent / "forecast" / "forecasts.parquet")
    rows = forecasts[(forecasts.dataset == "birds") & (forecasts.outcome == GAIN)]
    button = own_page.locator("#expected-0 figcaption button")
    button.click()
    assert len(read_column(own_page, "expected-0-numbers", "run")) == len(rows) == 4
    own_page.select_option("#forecasts [data-param=outcome] >> nth=0", "ood_change")
    own_page.wait_for_function(  # a linear probe is not tested on other tasks
        "() => document.querySelectorAll('#expected-0 .mark-symbol path').length === 3"
    )


def test_matrix_of_many_datasets_fits_a_desktop(browser, tmp_path):
    names = [f"task {i}" for i in range(12)]
    path = build(tmp_path, names=names)
    with opened(browser, path, viewport={"width": 1280, "height": 900}) as page:
        assert page.locator("#matrix").bounding_box()["width"] > 900
        box = page.locator("#matrix .scroll")
        assert box.evaluate("e => e.scrollWidth <= e.clientWidth")


def test_figures_escape_names(browser, tmp_path):
    """Names of models and datasets occur in JSON within a script, in axes and in tooltips."""
    evil = f"</script>{EVIL}<img src=x onerror=alert(1)>"
    path = build(tmp_path, models=(evil,), names=["$measure", "$rows", "plain"], methods=("full",))
    assert EVIL not in path.read_text()
    with opened(browser, path) as page:
        page.on("dialog", lambda dialog: pytest.fail(dialog.message))
        axis = page.locator("#matrix .role-axis-label text").all_text_contents()
        assert {"$measure", "$rows", "plain"} <= set(axis)
        page.evaluate("location.hash = 'dataset-0'")
        page.wait_for_selector("#dataset-0[open] #task-0 svg")
        point = page.locator("#task-0 .mark-symbol.role-mark path").first
        point.scroll_into_view_if_needed()
        point.hover()
        page.locator("#vg-tooltip-element.visible").wait_for()
        assert evil in page.locator("#vg-tooltip-element").text_content()
        assert page.locator("img[src=x]").count() == 0


def test_shifted_test_is_a_column_and_an_outcome_and_one_epoch_a_point(browser, tmp_path):
    study = make_study(tmp_path, methods=("full",))
    add_shifted_test(tmp_path, study)
    epochs = pq.read_table(study["epochs"][0])
    write_parquet(epochs.filter(pc.equal(epochs["epoch"], 1)), study["epochs"][0], {})
    build_report(**study, output=tmp_path / "report.html", title="Shifted and short")
    with opened(browser, tmp_path / "report.html") as page:
        assert count_marks(page, "epochs") >= 4
        assert count_marks(page, "matrix") == 4 * 4  # three datasets and a shifted test
        page.select_option("#prediction [data-param=outcome]", "shifted_change")
        page.wait_for_function(
            "() => document.querySelector('#scatter .note').textContent.includes('n = 1')"
        )


@pytest.mark.parametrize("names", [NAMES[:1], NAMES[:2]])
def test_report_draws_few_datasets_without_errors(browser, tmp_path, names):
    path = build(tmp_path, names=names, methods=("linear_probe", "full"))
    with opened(browser, path) as page:
        assert (
            count_marks(page, "matrix")
            and count_marks(page, "scatter")
            and count_marks(page, "epochs")
        )


def test_report_opens_without_fine_tuning(browser, tmp_path):
    study = make_study(tmp_path)
    for name in ("tasks", "statistics", "front", "drift"):
        table = study["analysis"] / f"{name}.parquet"
        write_parquet(pq.read_table(table).slice(0, 0), table, {"measures": []})
    build_report(**study | {"epochs": []}, output=tmp_path / "report.html", title="Zero-shot only")
    with opened(browser, tmp_path / "report.html") as page:
        assert page.locator("#table-measures tbody tr").count() == 4
        assert page.locator("#table-results").count() == 0


def test_unpack_in_the_page_equals_that_of_the_tests(page, report):
    """The tests unpack tables just as the page does."""
    rows = page.evaluate("load('measures').then(() => rowsOf('measures'))")
    frame = unpack(page.evaluate("packed.measures"))
    assert [row["dataset"] for row in rows] == list(frame.dataset)
    assert rows[-1]["model"] is None and frame.model.iloc[-1] is None
