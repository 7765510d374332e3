"""Tests of the report's HTML as text: its contents, and that names are escaped."""

import io
import json
import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from forecast_tables import add_forecast
from foretune.analysis.formatting import format_number, format_percent, format_plain, format_points
from foretune.core.errors import ForetuneError
from foretune.core.files import write_json
from foretune.core.parquet import write_parquet
from foretune.report.build import FEW_DATASETS, build_report
from foretune.report.page_data import (
    MAX_DRAWN_TRIALS,
    format_json,
    make_trial_rows,
    pack_columns,
    round_values,
)
from foretune.report.thumbnails import make_data_uri
from report_study import (
    EVIL,
    MEASURES,
    NAMES,
    add_shifted_test,
    build,
    embedded,
    make_study,
    save,
    unpack,
    without_vega,
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return build(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def markup(report) -> str:
    return without_vega(report)


def test_report_loads_nothing_from_the_network(markup):
    assert not re.findall(r"""src\s*=\s*["']?\s*(?:https?:)?//""", markup)
    assert not re.findall(r'<link[^>]+href="(?!data:)', markup)
    assert "@import" not in markup and not re.search(r"url\(", markup)
    # The only addresses are the sources of the datasets, as plain links.
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", markup))
    assert addresses == {f"https://example.org/{name}" for name in NAMES[:3]}


def test_report_escapes_names(markup):
    assert EVIL not in markup
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in markup
    assert "A &lt;study&gt;" in markup
    assert "Without a result." in markup
    assert "alert(1)&lt;/script&gt;, full on a: every trial diverged" in markup
    scripts = re.findall(r"<script\b[^>]*>", markup)
    assert scripts.count("<script>") == 2  # the page's own, and Vega's, which without_vega emptied
    assert all('type="application/' in tag for tag in scripts if tag != "<script>")


def test_format_json_cannot_end_a_script():
    written = format_json({"</script>": "<!-- \u2028"})
    assert "<" not in written and "\u2028" not in written
    assert json.loads(written) == {"</script>": "<!--  "}


def test_report_states_the_results_of_the_study(markup, report):
    tasks = pd.read_parquet(report.parent / "analysis" / "tasks.parquet")
    means = unpack(embedded(markup, "data-means")).set_index("method")
    for method, run in tasks.groupby("method"):
        assert means.accuracy[method] == pytest.approx(run.accuracy.mean(), rel=1e-5)
        assert means.zero_shot_accuracy[method] == pytest.approx(run.zero_shot_accuracy.mean())
    best = tasks.groupby("method").accuracy.mean()
    assert f"{best.idxmax()} on tiny-clip has the highest mean test accuracy" in markup
    assert format_percent(best.max()) in markup
    for fact in ["digest-of-aurora", "weights-digest", "seed: 1", "CC0-1.0"]:
        assert fact in markup
    # Three datasets are too few to show anything, and the page states that.
    assert "Not shown: no measure predicts the gain for any of the 2 pairs" in markup
    assert markup.count('class="verdict') == 5


def test_report_embeds_every_table_completely(markup, report):
    analysis = report.parent / "analysis"
    for name, shown in embedded(markup, "tables").items():
        data = unpack(embedded(markup, f"data-{shown['data']}"))
        assert shown["rows"] == len(data), name
        keys = {key for column in shown["columns"] for key in (column["key"], *column["beside"])}
        assert keys <= set(data), name
    whole = pd.read_parquet(analysis / "statistics.parquet")
    data = unpack(embedded(markup, "data-statistics"))
    for name in ("spearman", "p_holm", "slope", "r2"):
        np.testing.assert_allclose(data[name].astype(float), whole[name], rtol=1e-5)


def test_report_shows_intervals_and_notes_of_measures(markup):
    measured = unpack(embedded(markup, "data-measures"))
    assert measured.dataset.iloc[-1] == "elsewhere" and measured.model.iloc[-1] is None
    np.testing.assert_allclose((measured["iimm.high"] - measured["iimm.low"])[:3], 0.02, rtol=1e-3)
    assert "<li>emms: noise (1 task)</li>" in markup
    # The third dataset is within 10% with 48 images or more, the others with 24 or more.
    sentence = embedded(markup, "settings")["enough"]["tiny-clip"]["iimm"]
    assert sentence.startswith("With 48 images or more, iimm deviates by at most 10%")


def test_report_warns_only_of_few_datasets(tmp_path, markup):
    assert (
        "Too few datasets for general conclusions (n = 3)" in markup
        and "p-value of 0.333" in markup
    )
    page = build(tmp_path, names=NAMES[:FEW_DATASETS]).read_text()
    assert "Too few datasets" not in page


def test_format_plain_keeps_all_digits_of_counts():
    assert [format_plain(v) for v in (1800, 1e-05, 0.002, 12.0)] == ["1800", "1e−05", "0.002", "12"]


def test_formatting_shows_unknown_values_as_dashes():
    formatters = (format_percent, format_points, format_number)
    for unknown in (None, float("nan")):
        assert [show(unknown) for show in formatters] == ["–"] * 3
    assert format_percent(0.5) == "50.0%"
    assert format_points(-0.031) == "−3.1"
    assert format_number(-0.7) == "−0.700"
    assert [format_number(value) for value in (-1554.2, 123.4, 99.94)] == ["−1550", "123", "99.9"]


def test_report_does_not_skip_heading_levels(tmp_path):
    study = make_study(tmp_path, names=NAMES[:5])
    add_forecast(tmp_path, study)
    build_report(**study, output=tmp_path / "report.html", title="Headings")
    markup = without_vega(tmp_path / "report.html")
    levels = [int(level) for level in re.findall(r"<h([1-6])\b", markup)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_report_gives_samples_an_alt_text(markup):
    images = re.findall(r'<li><img src="data:image/png;base64,[^"]+"[^>]* alt="([^"]+)"', markup)
    assert len(images) == 3 * 10
    assert set(images) == {"red", "&lt;script&gt;alert(1)&lt;/script&gt;", "big &amp; blue"}


def test_build_report_accepts_a_minimal_study(tmp_path):
    """The study has no epochs, no statistics, and one dataset without test images."""
    study = make_study(tmp_path, names=NAMES[:1], methods=("linear_probe",))
    description = json.loads(study["datasets"][0].read_text())
    del description["splits"]["test"]
    write_json(description, study["datasets"][0])
    for name in ("statistics", "differences", "findings_evidence", "confusions", "drift"):
        path = study["analysis"] / f"{name}.parquet"
        save(pd.read_parquet(path).iloc[:0], path)
    build_report(**study | {"epochs": []}, output=tmp_path / "report.html", title="Bare")
    page = without_vega(tmp_path / "report.html")
    assert "No epochs were recorded" in page
    assert "No method was tested on other tasks" in page


def test_build_report_accepts_a_study_without_fine_tuning(tmp_path):
    study = make_study(tmp_path)
    tasks = study["analysis"] / "tasks.parquet"
    write_parquet(pq.read_table(tasks).slice(0, 0), tasks, {"measures": []})
    build_report(**study, output=tmp_path / "report.html", title="Zero-shot only")
    assert "Nothing was fine-tuned" in (tmp_path / "report.html").read_text()


def test_report_shows_shifted_tests_if_there_are_any(tmp_path, markup):
    assert "shifted_change" not in embedded(markup, "settings")["outcomes"]
    study = make_study(tmp_path, names=NAMES[:FEW_DATASETS])
    add_shifted_test(tmp_path, study)
    build_report(**study, output=tmp_path / "report.html", title="Shifted")
    page = without_vega(tmp_path / "report.html")
    assert "a dataset that is a shifted test of the task fine-tuned on" in page
    means = unpack(embedded(page, "data-means"))
    assert (means.shifted_change == -0.125).all()
    assert '<option value="shifted_change">change on shifted tests</option>' in page
    title = f"{NAMES[0]} · sketch"
    assert f"<h3>{title}</h3>" in page
    assert title in set(unpack(embedded(page, "data-outcomes-0")).test)
    assert "Too few datasets" not in page  # enough datasets, though few of them have shifted tests
    for licence in ("of the sketches", "of its dataset"):
        assert f"<dt>Licence</dt><dd>{licence}</dd>" in page
    assert page.count("<dt>Caption</dt><dd>a thing, {}</dd>") == 2


def test_report_answers_for_each_forecast_dataset(tmp_path, markup):
    assert 'id="forecasts"' not in markup
    study = make_study(tmp_path, names=NAMES[:5])
    add_forecast(tmp_path, study)
    build_report(**study, output=tmp_path / "report.html", title="Forecast")
    page = without_vega(tmp_path / "report.html")
    section = page.split('id="forecasts"')[1].split("</section>")[0]
    assert section.count("What is to be expected?") == 2
    assert 'href="forecast/forecast.html"' in section
    assert "With method full on model tiny-clip, about 86% of new images" in section
    assert len(unpack(embedded(page, "data-rankings"))) == 2 * 4
    assert EVIL not in page


def test_report_explains_a_missing_forecast(tmp_path):
    study = make_study(tmp_path, names=NAMES[:2])
    add_forecast(tmp_path, study, ranked=False, note="n = 2: too few datasets")
    build_report(**study, output=tmp_path / "report.html", title="Forecast")
    page = without_vega(tmp_path / "report.html")
    assert "too few datasets" in unpack(embedded(page, "data-forecasts")).note[0]


def test_report_offers_only_pairs_of_model_and_method_that_exist(tmp_path):
    study = make_study(tmp_path, models=("one", "two"))
    for name in ("tasks", "outcomes", "statistics"):
        path = study["analysis"] / f"{name}.parquet"
        frame = pd.read_parquet(path)
        save(frame[(frame.model == "one") | (frame.method != "full")], path, measures=MEASURES)
    study["epochs"] = [path for path in study["epochs"] if path.name != "two-full-epochs.parquet"]
    build_report(**study, output=tmp_path / "report.html", title="Partly")
    runs = embedded(without_vega(tmp_path / "report.html"), "settings")["runs"]
    assert ["two", "linear_probe"] in runs and ["two", "full"] not in runs


def test_pack_columns_keeps_the_values():
    frame = pd.DataFrame({
        "word": ["a", None, "</b>", "a"], "number": [0.123456789, np.nan, np.inf, -1e-9],
        "count": pd.array([1, None, 3, 4], dtype="Int64"), "list": [[1.23456789], [], [2.0], [3]],
        "flag": pd.array([True, None, False, True], dtype="boolean"),
    })  # fmt: skip
    back = unpack(json.loads(format_json(pack_columns(frame))))
    assert list(back.word) == ["a", None, "</b>", "a"]
    assert back.number[0] == 0.123457 and back.number[1:3].isna().all() and back.number[3] == -1e-9
    assert list(back["count"].astype("Int64").dropna()) == [1, 3, 4]
    assert list(back["list"]) == [[1.23457], [], [2.0], [3]]
    assert [round_values([value], 3)[0] for value in (123456.0, 0.00123456, -2.5, 0.0)] == [
        123000.0, 0.00123, -2.5, 0.0
    ]  # fmt: skip
    assert list(back.flag) == [True, None, False, True]


def test_make_trial_rows_keeps_the_chosen_trial_and_the_best_others(tmp_path):
    study = make_study(tmp_path, names=NAMES[:1], methods=("full",), trials=12, epochs=90)
    tasks = pd.read_parquet(study["analysis"] / "tasks.parquet").assign(trial=0, best_epoch=7)
    kept = make_trial_rows(study["epochs"], tasks)
    assert len(kept) == MAX_DRAWN_TRIALS and (kept.left_out == 12 - MAX_DRAWN_TRIALS).all()
    chosen = kept[kept.trial == 0].iloc[0]
    assert chosen.best == 7 and 7 in chosen.epoch and len(chosen.epoch) <= 41
    assert chosen.epoch[0] == 1 and chosen.epoch[-1] == 90
    best = pd.read_parquet(study["epochs"][0]).groupby("trial").val_accuracy.max()
    assert set(kept.trial) == {0, *best.drop(0).nlargest(MAX_DRAWN_TRIALS - 1).index}


def test_build_report_names_a_broken_image_and_writes_nothing(tmp_path):
    study = make_study(tmp_path)
    test = study["datasets"][0].parent / "test.parquet"
    table = pq.read_table(test)
    broken = pa.array([b"not an image"] * len(table))
    write_parquet(table.set_column(0, "image", broken), test, {})
    with pytest.raises(ForetuneError, match=r"test\.parquet: row \d+: not a readable image"):
        build_report(**study, output=tmp_path / "report.html", title="Broken")
    assert not (tmp_path / "report.html").exists()


def test_make_data_uri_shrinks_large_images(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    uri = make_data_uri(file.getvalue(), "noise")
    assert uri.startswith("data:image/jpeg") and len(uri) < len(file.getvalue()) / 4
