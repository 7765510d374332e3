"""Tests of the forecast page as text: its sentences, figures' data, images and escaped names."""

import json
import re

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from forecast_tables import PROBE, make_forecast
from foretune.core.errors import ForetuneError
from foretune.data.prepared import read_manifest
from foretune.report.forecast_answers import answer_forecast, join_names, select_dataset
from foretune.report.forecast_images import MOST_DOUBTFUL, describe_images
from foretune.report.forecast_page import FORECAST_TABLES, build_forecast_page
from foretune.report.thumbnails import read_data_uris
from report_study import embedded, make_dataset, unpack, without_vega

BOLD = "<b>bold</b>"
CLASSES = ["red", BOLD, "blue & green"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A prepared dataset with 24 training images of three classes."""
    folder = tmp_path_factory.mktemp("prepared")
    return make_dataset(folder, "birds", np.random.default_rng(0), CLASSES).parent


def read_answers(folder, dataset, **fields) -> list[dict]:
    """Return the page's answers for a forecast with the given fields of ForecastShape."""
    paths = make_forecast(folder, [dataset], **fields)
    tables = {n: pd.read_parquet(paths["forecast"] / f"{n}.parquet") for n in FORECAST_TABLES}
    return answer_forecast(select_dataset(tables, dataset.name))


def build(folder, datasets, **fields) -> str:
    """Build a forecast page, and return its markup without Vega."""
    paths = make_forecast(folder, datasets, **fields)
    build_forecast_page(**paths)
    return without_vega(paths["output"])


@pytest.fixture(scope="module")
def markup(tmp_path_factory, dataset) -> str:
    return build(tmp_path_factory.mktemp("forecast"), [dataset])


def test_answers_say_what_to_expect(tmp_path, dataset):
    expect, best, images, errors = read_answers(tmp_path, dataset)
    assert expect["answer"] == (
        "With method full on model tiny-clip, about 86% of new images will be classified correctly."
    )
    assert "79% to 93%" in expect["sentences"][0] and "41% correctly." in expect["sentences"][1]
    assert "lose about 3.4 points" in expect["sentences"][2]
    assert best["answer"] == "Not surely: lora on tiny-clip may be as good."
    assert "1.0 point behind (95% interval −0.5 to +2.5)" in best["sentences"][0]
    assert images["answer"] == "Yes: twice as many would add about 2.1 points of accuracy."
    assert len(images["sentences"]) == 4
    assert errors["answer"] == "By 4.1 points of accuracy on average."
    assert "So such a forecast is better than the mean." in errors["sentences"][0]


def test_answers_tell_a_sure_first_from_an_unsure_one(tmp_path, dataset):
    best = read_answers(tmp_path / "sure", dataset, gap=0.1)[1]
    assert best["answer"] == "Yes: it is shown to be better than every other choice."
    best = read_answers(tmp_path / "equal", dataset, gap=0.005)[1]
    assert "2 of the 2 other choices may be as good" in best["sentences"][1]


def test_an_interval_that_is_missing_shows_no_lead(tmp_path, dataset):
    paths = make_forecast(tmp_path, [dataset], gap=0.1)
    tables = {n: pd.read_parquet(paths["forecast"] / f"{n}.parquet") for n in FORECAST_TABLES}
    tables["rankings"][["behind_low", "behind_high"]] = np.nan
    best = answer_forecast(select_dataset(tables, "birds"))[1]
    assert best["answer"].startswith("Not surely") and "interval" not in best["sentences"][0]


def test_answers_without_a_ranking(tmp_path, dataset):
    expect, best, *_ = read_answers(tmp_path, dataset, ranked=False)
    assert best["answer"] == "No model and method can be ranked."
    assert best["sentences"] == ["not ranked, because a part of its score is not known."]
    assert "full on model tiny-clip" in expect["answer"]  # the highest accuracy comes first
    build_forecast_page(**make_forecast(tmp_path / "page", [dataset], ranked=False))


def test_answers_about_a_single_choice(tmp_path, dataset):
    best = read_answers(tmp_path, dataset, runs=[("tiny-clip", "full")])[1]
    assert best["answer"] == "There is no other choice that could be ranked."


def test_answers_about_a_measured_method(tmp_path, dataset):
    runs = [("tiny-clip", "linear_probe")]
    expect, _, _, errors = read_answers(tmp_path, dataset, runs=runs, ranked=False)
    assert "was measured, not forecast" in expect["answer"]
    assert "other tasks is not known" in expect["sentences"][-1]
    assert "no forecast" in errors["answer"] and errors["sentences"] == []


def test_answers_name_an_unranked_run_with_higher_accuracy(tmp_path, dataset):
    expect = read_answers(tmp_path, dataset, gap=-0.01)[0]
    assert "linear_probe on tiny-clip reaches 89% (measured)" in expect["sentences"][-1]


@pytest.mark.parametrize(
    ("added", "learning", "start"),
    [(0.0, True, "Hardly"), (-0.02, True, "Hardly"), (0.03, False, "Not known")],
)
def test_answers_about_more_images(tmp_path, dataset, added, learning, start):
    images = read_answers(tmp_path, dataset, added=added, learning=learning)[2]
    assert images["answer"].startswith(start)


def test_answers_about_errors_admit_a_useless_forecast(tmp_path, dataset):
    errors = read_answers(tmp_path, dataset, error=0.14)[3]
    assert "no better than the mean" in errors["sentences"][0]
    errors = read_answers(tmp_path, dataset, error=None)[3]
    assert errors["answer"].startswith("Not known")


@pytest.mark.parametrize(
    ("change", "words"), [(0.02, "gain about 2.0 points"), (0.001, "as it is")]
)
def test_answers_about_other_tasks(tmp_path, dataset, change, words):
    assert words in read_answers(tmp_path, dataset, change=change)[0]["sentences"][2]


def test_join_names_counts_those_that_are_too_many():
    assert join_names(["a"]) == "a"
    assert join_names(["a", "b", "c"]) == "a, b and c"
    assert join_names(list("abcdefg")) == "a, b, c, d and 3 more"


def test_page_loads_nothing_and_escapes_names(markup):
    assert not re.findall(r"""src\s*=\s*["']?\s*(?:https?:)?//""", markup)
    assert BOLD not in markup and "&lt;b&gt;bold&lt;/b&gt;" in markup
    assert "blue & green" not in re.sub(r"<script.*?</script>", "", markup, flags=re.S)
    assert "&#39;" not in embedded(markup, "tables")["runs-0"]["caption"]


def test_page_has_a_row_for_each_model_and_method(markup):
    table = embedded(markup, "tables")["runs-0"]
    rows = unpack(embedded(markup, "data-runs-0"))
    assert rows["rank"].tolist()[:3] == [1, 2, 3] and pd.isna(rows["rank"].iloc[3])
    assert rows["accuracy.predictor"].tolist()[-1] == "measured"
    assert rows["ood_change.predictor"].tolist()[-1] is None  # there is nothing to predict
    assert {"accuracy", "ood_change", "behind"} <= {c["key"] for c in table["columns"]}
    assert unpack(embedded(markup, "data-candidates")).chosen.tolist().count("yes") == 4


def test_page_draws_forecasts_curve_and_place(markup):
    drawn = unpack(embedded(markup, "data-forecasts"))
    assert drawn.zero_shot[drawn.outcome != "accuracy"].eq(0).all()
    assert drawn.measured.sum() == 3
    curve = unpack(embedded(markup, "data-learning"))
    assert len(curve) == 4 + 4 and curve.low.notna().sum() == 4
    places = unpack(embedded(markup, "data-places"))
    assert len(places) == 12 + 1 and places.forecast.sum() == 1
    assert places.dataset[places.forecast.astype(bool)].tolist() == ["birds"]


def test_page_places_the_dataset_by_what_the_study_has(tmp_path, dataset):
    for predictors, expected in [(["train_zero_shot_accuracy"],) * 2, ([], [None])]:
        markup = build(tmp_path / str(len(predictors)), [dataset], predictors=predictors)
        settings = embedded(markup, "settings")
        assert [item["predictor"] for item in settings["forecasts"]] == expected
        assert ('data-kind="place"' in markup) == bool(predictors)
        assert (PROBE in json.dumps(settings)) is False


def test_page_without_learning_rows_draws_the_probe_alone(tmp_path, dataset):
    markup = build(tmp_path, [dataset], learning=False)
    assert len(unpack(embedded(markup, "data-learning"))) == 4
    assert "table-more-images" not in markup and "no learning curve" in markup


def test_page_of_two_datasets_has_a_section_for_each(tmp_path, dataset):
    other = make_dataset(tmp_path, "coins", np.random.default_rng(1), CLASSES).parent
    both = dataset.parent / "coins"
    if not both.exists():
        both.symlink_to(other)
    markup = build(tmp_path, [dataset, both], note="extrapolated")
    assert "Forecast for 2 datasets" in markup and markup.count('id="forecast-') == 4
    ids = re.findall(r'\bid="([^"]+)"', markup)
    assert len(ids) == len(set(ids))
    assert markup.count("</strong> extrapolated.") == 2


def test_page_says_when_the_probe_is_always_right(tmp_path, dataset):
    markup = build(tmp_path, [dataset], wrong=0)
    assert "classifies every training image correctly" in markup
    assert "contradicts no label" in markup


def test_images_are_those_of_the_most_frequent_pairs(dataset):
    rows = pq.read_table(dataset / "train.parquet", columns=["id", "label"]).to_pandas()
    probe = rows.label.to_numpy().copy()
    red = np.flatnonzero(probe == 0)
    probe[red[:3]], probe[red[3]] = 1, 2
    images = rows.assign(probe=probe, margin=np.where(probe == rows.label, 1.0, -1.0))
    images.loc[red[3], "margin"] = -2.0
    pairs, doubtful = describe_images(images, dataset / "train.parquet", CLASSES)
    assert [(p["given"], p["taken"], p["n"], p["of"]) for p in pairs] == [
        ("red", BOLD, 3, 8), ("red", "blue & green", 1, 8),
    ]  # fmt: skip
    uris = read_data_uris(dataset / "train.parquet", red)
    assert pairs[0]["confused"] == [uris[row] for row in red[:3]]
    assert len(pairs[0]["others"]) == 3
    assert [image["id"] for image in doubtful] == [rows.id[red[i]] for i in (3, 0, 1, 2)]
    assert doubtful[0]["given"] == "red" and doubtful[0]["probe"] == "blue & green"
    assert len(doubtful) <= MOST_DOUBTFUL
    assert read_manifest(dataset)["classes"] == CLASSES


def test_an_image_that_the_dataset_lacks_is_named(dataset):
    images = pd.DataFrame({"id": ["lost"], "label": [0], "probe": [1], "margin": [-1.0]})
    with pytest.raises(ForetuneError, match=r"train\.parquet: has no image lost"):
        describe_images(images, dataset / "train.parquet", CLASSES)


def test_page_shows_the_notes_of_a_rehearsal(tmp_path, dataset):
    paths = make_forecast(tmp_path, [dataset])
    path = paths["rehearsals"] / "tiny-clip" / "birds.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"notes": ["only 24 images"]}))
    build_forecast_page(**paths)
    assert "</strong> only 24 images." in without_vega(paths["output"])
