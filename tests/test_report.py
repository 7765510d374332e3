"""The report: a synthetic study made into a page, read as text and opened in a browser."""

import io
import json
import os
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from foretune.analyze import WISE_FT
from foretune.evaluate import MOVEMENT
from foretune.files import ForetuneError, write_json
from foretune.report import FEW, STATISTICS, build_report, data_uri
from foretune.tables import write_parquet
from foretune.wording import number, percent, plain, points

CHROMIUM = Path("/usr/bin/chromium")
INSTALL = "apt-get install chromium"
EVIL = "<script>alert(1)</script>"
MEASURES = ["iimm", "modality_gap"]
NAMES = ["aurora", "beetles", "coins", "dunes", "engines", "ferns", "glyphs", "harbours", "ice"]


def png(colour, side: int = 24) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), tuple(int(c) for c in colour)).save(file, "PNG")
    return file.getvalue()


def make_dataset(folder: Path, name: str, rng, classes: list[str]) -> Path:
    folder = folder / "datasets" / name
    folder.mkdir(parents=True)
    splits = {}
    for split, rows in [("train", 24), ("val", 6), ("test", 12)]:
        labels = np.arange(rows) % len(classes)
        images = [png(rng.integers(0, 256, 3)) for _ in labels]
        table = pa.table({"image": images, "label": labels, "id": [str(i) for i in range(rows)]})
        write_parquet(table, folder / f"{split}.parquet", {}, row_group_size=5)
        splits[split] = {"file": f"{split}.parquet", "rows": rows}
    description = {
        "name": name, "split": "test", "classes": classes,
        "caption": "a photo of a {}", "licence": "CC0-1.0",
        "source": f"https://example.org/{name}", "digest": f"digest-of-{name}", "splits": splits,
    }  # fmt: skip
    write_json(description, folder / "dataset.json")
    return folder / "dataset.json"


def make_study(
    folder: Path, names=NAMES[:3], models=("tiny-clip",), methods=("full", "linear_probe"), seed=0
) -> dict:
    """A study whose gain rises and whose ood_change falls with IIMM; a probe has none."""
    rng = np.random.default_rng(seed)
    outcomes, tasks, statistics, epochs = [], [], [], []
    for model in models:
        zero = {name: rng.uniform(0.3, 0.8) for name in names}
        iimm = {name: rng.uniform(0.2, 0.5) for name in names}
        rows = [("zero_shot", None, other, zero[other]) for other in names]
        for method in methods:
            probe = method == "linear_probe"
            for name in names:
                gain = min(0.95, 2 * iimm[name] + rng.normal(0, 0.05))
                accuracy = zero[name] + gain * (1 - zero[name])
                change = -iimm[name] / 3 + rng.normal(0, 0.02)
                rows.append((method, name, name, accuracy))
                if not probe:
                    rows += [(method, name, o, zero[o] + change) for o in names if o != name]
                tasks.append({
                    "model": model, "method": method, "dataset": name,
                    "zero_shot_accuracy": zero[name], "accuracy": accuracy, "chance": 1 / 3,
                    "gain_over_zero_shot_error": gain,
                    "ood_change": None if probe or len(names) == 1 else change,
                    "shifted_change": None,
                    "val_accuracy": accuracy, "trial": 2, "learning_rate": 1e-3,
                    "weight_decay": 1e-4,
                    "best_epoch": 5, "iimm": iimm[name], "modality_gap": 0.5,
                })  # fmt: skip
            epochs.append(make_epochs(folder, model, method, names, zero, rng))
            outcomes_measured = ["gain_over_zero_shot_error", "accuracy", "ood_change"]
            for measure in MEASURES:
                for outcome in outcomes_measured[: 2 if probe else 3]:
                    own = tasks[-len(names) :]
                    x = [task[measure] for task in own]
                    y = [task[outcome] for task in own]
                    statistics.append(fit(x, y) | {
                        "model": model, "method": method, "measure": measure, "outcome": outcome,
                    })  # fmt: skip
        outcomes += [
            {"model": model, "method": method, "trained_on": on, "evaluated_on": other,
             "split": "test", "accuracy": accuracy, "n": 12, "chance": 1 / 3,
             "wise_ft": 1.0 if on else None, "zero_shot_accuracy": zero[other]}
            for method, on, other, accuracy in rows
        ]  # fmt: skip
    analysis = folder / "analysis"
    tasks = pd.DataFrame(tasks)
    write_parquet(pa.Table.from_pandas(pd.DataFrame(outcomes)), analysis / "outcomes.parquet", {})
    write_parquet(
        pa.Table.from_pandas(tasks), analysis / "tasks.parquet", {"measures": list(MEASURES)}
    )
    write_json(statistics, analysis / "statistics.json")
    measured = tasks.drop_duplicates(["model", "dataset"])[["model", "dataset", *MEASURES]]
    measured = measured.assign(
        n_train=24,
        notes="",
        **{"iimm.low": measured.iimm - 0.01, "iimm.high": measured.iimm + 0.01},
    )
    elsewhere = {"model": None, "dataset": "elsewhere", "n_train": 100, "iimm": 0.25,
                 "notes": "emms: noise; ncti: one class"}  # fmt: skip
    measured = pd.concat([measured, pd.DataFrame([elsewhere])], ignore_index=True)
    write_parquet(pa.Table.from_pandas(measured), analysis / "measures.parquet", {})
    curves = pd.DataFrame(
        [{"model": model, "dataset": name, "measure": "iimm", "n": n, "mean": 0.3,
          "deviation": 1 / n, "relative": 2 / n + 0.01 * number}
         for model in models for number, name in enumerate(names) for n in (12, 24, 48)],
        columns=["model", "dataset", "measure", "n", "mean", "deviation", "relative"],
    )  # fmt: skip
    write_parquet(pa.Table.from_pandas(curves), analysis / "curves.parquet", {})
    outcomes_of_half = {name: tasks[name] / 2 for name in WISE_FT}
    halves = tasks[["model", "method", "dataset", "accuracy"]].assign(
        wise_ft=0.5, **outcomes_of_half
    )
    halves = halves[halves.method == "full"].astype(dict.fromkeys(WISE_FT, float))
    write_parquet(pa.Table.from_pandas(halves), analysis / "wise_ft.parquet", {})
    moved = pd.DataFrame(
        [{name.name: 0.1 for name in MOVEMENT} | {"model": model, "method": "full", "dataset": name}
         for model in models for name in names], columns=MOVEMENT.names,
    )  # fmt: skip
    write_parquet(pa.Table.from_pandas(moved), analysis / "movement.parquet", {})
    facts = {
        "created": "2025-01-01T00:00:00Z", "git_commit": None,
        "versions": {"torch": "2.9.0"}, "config": {"seed": 1, "note": EVIL},
        "datasets": {name: f"digest-of-{name}" for name in names},
        "models": dict.fromkeys(models, "weights-digest"),
    }  # fmt: skip
    write_json(facts, folder / "provenance.json")
    return {
        "analysis": analysis, "epochs": epochs, "provenance": folder / "provenance.json",
        "datasets": [make_dataset(folder, n, rng, ["red", EVIL, "big & blue"]) for n in names],
    }  # fmt: skip


def add_shifted_test(folder: Path, study: dict) -> None:
    """Give the study's first dataset a shifted test `sketch`, on which every run loses."""
    name, analysis = NAMES[0], study["analysis"]
    outcomes = pd.read_parquet(analysis / "outcomes.parquet")
    on_it = outcomes[outcomes.evaluated_on == name].assign(
        split="sketch", accuracy=0.125, zero_shot_accuracy=0.25
    )
    outcomes = pd.concat([outcomes, on_it], ignore_index=True)
    write_parquet(pa.Table.from_pandas(outcomes), analysis / "outcomes.parquet", {})
    tasks = pd.read_parquet(analysis / "tasks.parquet")
    tasks["shifted_change"] = np.where(tasks.dataset == name, -0.125, np.nan)
    metadata = {"measures": list(MEASURES)}
    write_parquet(pa.Table.from_pandas(tasks), analysis / "tasks.parquet", metadata)
    statistics = json.loads((analysis / "statistics.json").read_text())
    notes = [
        dict.fromkeys(STATISTICS) | {key: row[key] for key in ("model", "method", "measure")}
        | {"outcome": "shifted_change", "n": 1, "note": "n = 1: too few datasets"}
        for row in statistics if row["outcome"] == "accuracy"
    ]  # fmt: skip
    write_json([*statistics, *notes], analysis / "statistics.json")
    shifted = make_dataset(folder / "shifted", name, np.random.default_rng(1), ["red", "blue"])
    description = json.loads(shifted.read_text()) | {"split": "sketch", "licence": "of the source"}
    del description["splits"]["train"], description["splits"]["val"]
    write_json(description, shifted)
    study["datasets"].append(shifted)
    facts = json.loads(study["provenance"].read_text())
    facts["config"]["datasets"] = {
        name: {"caption": "a thing, {}", "licence": "of its dataset",
               "shifted": {"sketch": {"licence": "of the sketches"}}}
    }  # fmt: skip
    write_json(facts, study["provenance"])


def fit(x: list[float], y: list[float | None]) -> dict:
    """What analyze writes: a fit, or nulls and a note where there is none."""
    row = dict.fromkeys(STATISTICS) | {"n": len(x), "note": ""}
    if len(x) < 3 or np.std(x) == 0:
        return row | {"note": "the measure is constant or there are too few datasets"}
    slope, intercept = np.polyfit(x, y, 1)
    rank = np.corrcoef(np.argsort(np.argsort(x)), np.argsort(np.argsort(y)))[0, 1]
    return row | {
        "spearman": rank, "p_asymptotic": 0.04, "p_permutation": 0.05, "slope": slope,
        "intercept": intercept, "r2": np.corrcoef(x, y)[0, 1] ** 2, "p_slope": 0.01,
    }  # fmt: skip


def make_epochs(folder: Path, model, method, names, zero, rng) -> Path:
    rows = [
        {"model": model, "method": method, "dataset": name, "trial": trial,
         "learning_rate_peak": rate, "weight_decay": decay, "rank": None,
         "reduction": None, "epoch": epoch, "loss": 1 / epoch,
         "val_accuracy": zero[name] + (0.95 - zero[name]) * (1 - np.exp(-epoch * rate * 900))
         - rng.uniform(0, 0.03), "learning_rate": rate, "images_per_second": 500.0}
        for name in names
        for trial, (rate, decay) in enumerate((r, d) for r in (1e-4, 1e-3) for d in (1e-5, 1e-4))
        for epoch in range(1, 7)
    ]  # fmt: skip
    path = folder / f"{re.sub(r'[^a-z]', '_', model)}-{method}-epochs.parquet"
    write_parquet(pa.Table.from_pandas(pd.DataFrame(rows)), path, {})
    return path


def build(folder: Path, **changes) -> Path:
    study = make_study(folder, **changes)
    build_report(**study, output=folder / "report.html", title="A <study>")
    return folder / "report.html"


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def markup(report) -> str:
    """The page without the bundled Vega, which is not ours to check."""
    page = report.read_text()
    bundle = max(re.findall(r"<script>(.*?)</script>", page, re.S), key=len)
    assert page.count("window.vegaEmbed=") == 1
    return page.replace(bundle, "")


# ---------------------------------------------------------------- as text


def test_loads_nothing_from_the_network(markup):
    assert not re.findall(r"""src\s*=\s*["']?\s*(?:https?:)?//""", markup)
    assert not re.findall(r'<link[^>]+href="(?!data:)', markup)
    assert "@import" not in markup and not re.search(r"url\(", markup)
    # Addresses are only those that a dataset names as its source, as plain links.
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", markup))
    assert addresses == {f"https://example.org/{name}" for name in NAMES[:3]}


def test_names_are_text(markup):
    assert EVIL not in markup
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in markup
    assert "A &lt;study&gt;" in markup
    assert len(re.findall(r"<script\b", markup)) == 3


def test_says_what_the_study_found(markup, report):
    tasks = pd.read_parquet(report.parent / "analysis" / "tasks.parquet")
    statistics = json.loads((report.parent / "analysis" / "statistics.json").read_text())
    for _, run in tasks.groupby("method"):
        assert percent(run.accuracy.mean()) in markup
        assert percent(run.zero_shot_accuracy.mean()) in markup
    assert points(tasks[tasks.method == "full"].ood_change.mean()) in markup
    for row in statistics:
        assert number(row["spearman"]) in markup
    for fact in ["digest-of-aurora", "weights-digest", "seed: 1", "CC0-1.0"]:
        assert fact in markup


def test_measures_have_their_intervals_and_notes(markup):
    assert markup.count(" ± 0.0100</td>") == 3
    assert '<td data-value="elsewhere">elsewhere</td>' in markup
    assert "<li>emms: noise (1 task)</li>" in markup
    # The third dataset is within 10% from 48 images on, the others from 24.
    assert "From 48 images on, iimm deviates by at most 10%" in markup


def test_warns_of_few_datasets_only(tmp_path, markup):
    assert "n = 3 says very little" in markup and "p-value of 0.333" in markup
    page = build(tmp_path, names=NAMES[:FEW]).read_text()
    assert "says very little" not in page


def test_counts_have_all_their_digits():
    assert [plain(v) for v in (1800, 1e-05, 0.002, 12.0)] == ["1800", "1e−05", "0.002", "12"]


def test_unknown_values_are_dashes():
    assert [show(None) for show in (percent, points, number)] == ["–"] * 3
    assert [show(float("nan")) for show in (percent, points, number)] == ["–"] * 3
    assert (percent(0.5), points(-0.031), number(-0.7)) == ("50.0%", "−3.1", "−0.700")


def test_headings_are_in_order(markup):
    levels = [int(level) for level in re.findall(r"<h([1-6])\b", markup)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_samples_have_alt_text(markup):
    images = re.findall(r'<img src="data:image/png;base64,[^"]+" alt="([^"]+)"', markup)
    assert len(images) == 3 * 10
    assert set(images) == {"red", "&lt;script&gt;alert(1)&lt;/script&gt;", "big &amp; blue"}


def test_the_study_without_anything_to_spare(tmp_path):
    """No epochs, no statistics, one dataset without test images."""
    study = make_study(tmp_path, names=NAMES[:1], methods=("linear_probe",))
    description = json.loads(study["datasets"][0].read_text())
    del description["splits"]["test"]
    write_json(description, study["datasets"][0])
    write_json([], study["analysis"] / "statistics.json")
    build_report(**study | {"epochs": []}, output=tmp_path / "report.html", title="Bare")
    assert "No epochs were recorded" in (tmp_path / "report.html").read_text()


def test_a_study_that_tuned_nothing(tmp_path):
    study = make_study(tmp_path)
    tasks = study["analysis"] / "tasks.parquet"
    write_parquet(pq.read_table(tasks).slice(0, 0), tasks, {"measures": []})
    build_report(**study, output=tmp_path / "report.html", title="Zero-shot only")
    assert "Nothing was fine-tuned" in (tmp_path / "report.html").read_text()


def without_vega(path: Path) -> str:
    page = path.read_text()
    return page.replace(max(re.findall(r"<script>(.*?)</script>", page, re.S), key=len), "")


def test_shifted_tests_are_shown_where_there_are_some(tmp_path, markup):
    assert "shifted" not in markup
    study = make_study(tmp_path, names=NAMES[:FEW])
    add_shifted_test(tmp_path, study)
    build_report(**study, output=tmp_path / "report.html", title="Shifted")
    page = without_vega(tmp_path / "report.html")
    said = "On shifted tests of the task tuned on, accuracy changes by −12.5 points."
    assert page.count(said) == 2
    assert "a dataset that is a shifted test of the task tuned on" in page
    assert '<td data-value="-0.125" class="n">−12.5</td>' in page
    assert '<option value="shifted_change">change on shifted tests</option>' in page
    assert f"<h3>{NAMES[0]} · sketch</h3>" in page and f"{NAMES[0]} \\u00b7 sketch" in page
    assert "says very little" not in page  # the study has datasets enough, if not shifted tests
    for said in ("of the sketches", "of its dataset"):
        assert f"<dt>Licence</dt><dd>{said}</dd>" in page
    assert page.count("<dt>Caption</dt><dd>a thing, {}</dd>") == 2


def test_a_method_may_lack_a_model(tmp_path):
    study = make_study(tmp_path, models=("one", "two"))
    analysis = study["analysis"]
    for name in ("tasks", "outcomes"):
        frame = pd.read_parquet(analysis / f"{name}.parquet")
        frame = frame[(frame.model == "one") | (frame.method != "full")]
        metadata = {"measures": list(MEASURES)}
        write_parquet(pa.Table.from_pandas(frame), analysis / f"{name}.parquet", metadata)
    rows = json.loads((analysis / "statistics.json").read_text())
    kept = [row for row in rows if row["model"] == "one" or row["method"] != "full"]
    write_json(kept, analysis / "statistics.json")
    study["epochs"] = [path for path in study["epochs"] if path.name != "two-full-epochs.parquet"]
    build_report(**study, output=tmp_path / "report.html", title="Partly")
    page = without_vega(tmp_path / "report.html")
    assert "two, linear_probe" in page and "two, full" not in page


def test_a_broken_image_is_named_and_leaves_no_report(tmp_path):
    study = make_study(tmp_path)
    test = study["datasets"][0].parent / "test.parquet"
    table = pq.read_table(test)
    broken = pa.array([b"not an image"] * len(table))
    write_parquet(table.set_column(0, "image", broken), test, {})
    with pytest.raises(ForetuneError, match=r"test\.parquet: row \d+: not a readable image"):
        build_report(**study, output=tmp_path / "report.html", title="Broken")
    assert not (tmp_path / "report.html").exists()


def test_large_images_become_thumbnails(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    uri = data_uri(file.getvalue(), "noise")
    assert uri.startswith("data:image/jpeg") and len(uri) < len(file.getvalue()) / 4


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{CHROMIUM} is missing: {INSTALL}")
        pytest.skip(f"{CHROMIUM} is missing: {INSTALL}")
    from playwright.sync_api import sync_playwright

    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update",
             "--disable-sync"]  # fmt: skip
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=quiet)
        yield browser
        browser.close()


def open_page(browser, path: Path, **options):
    """The page once drawn; what it complained of and asked for are in `page.seen`."""
    page = browser.new_page(**options)
    page.seen = {"errors": [], "requests": []}
    page.on(
        "console", lambda m: m.type in ("error", "warning") and page.seen["errors"].append(m.text)
    )
    page.on("pageerror", lambda error: page.seen["errors"].append(str(error)))
    page.on("request", lambda request: page.seen["requests"].append(request.url))
    page.goto(path.as_uri(), timeout=120_000)  # a busy machine
    page.wait_for_selector("html[data-drawn]", state="attached", timeout=120_000)
    return page


@pytest.fixture
def page(browser, report):
    page = open_page(browser, report)
    yield page
    page.close()


def marks(page, figure: str) -> int:
    """How many marks with an extent a figure shows."""
    return page.eval_on_selector_all(
        f"#{figure} .chart svg :is(.mark-rect, .mark-symbol, .mark-line, .mark-rule) path",
        "paths => paths.filter(p => p.getBBox().width + p.getBBox().height > 0).length",
    )


def test_draws_every_figure_quietly_and_offline(page, report):
    figures = page.eval_on_selector_all("figure", "all => all.map(f => f.id)")
    kinds = ("heat", "scatter", "curves")
    runs = [f"{kind}-{run}" for kind in kinds for run in (0, 1)]
    assert sorted(figures) == sorted([*runs, "converge-0", "trade-0"])
    assert all(marks(page, figure) for figure in figures)
    assert marks(page, "heat-0") == 12  # zero-shot and three trained rows, by three datasets
    assert marks(page, "heat-1") == 6  # a probe is tested on its own task only
    labels = page.eval_on_selector_all(
        "figure .chart", "all => all.map(s => s.getAttribute('aria-label'))"
    )
    assert all(labels) and "tiny-clip, full" in " ".join(labels)
    assert page.seen["errors"] == []
    outside = [url for url in page.seen["requests"] if not url.startswith(("data:", "blob:"))]
    assert outside == [report.as_uri()]


def test_gain_against_forgetting_has_a_point_a_method_and_wise_fts_curve(page, markup):
    # Of full: half way, all the way, and the zero-shot model; a probe has no other tasks.
    (figure,) = page.locator("figure[id^=trade]").all()
    assert figure.locator(".mark-symbol.role-mark path").count() == 3
    assert figure.locator(".mark-line path").count() == 1
    assert figure.locator(".role-legend-label text").all_text_contents() == ["full"]
    assert "WiSE-FT" in markup


def test_wide_matrices_have_a_row_of_their_own(browser, tmp_path):
    names = [f"task {i}" for i in range(12)]
    page = open_page(browser, build(tmp_path, names=names), viewport={"width": 1280, "height": 900})
    matrix = page.locator("#heat-0").bounding_box()
    assert matrix["width"] > 900
    shown, whole = page.locator("#heat-0 .scroll").evaluate("e => [e.clientWidth, e.scrollWidth]")
    assert whole <= shown
    page.close()


def test_lists_choose_what_is_drawn(page):
    title = page.locator("#scatter-0 svg .role-title-text")
    assert title.text_content() == "gain over zero-shot error against iimm"
    note = page.locator("#scatter-0 .note")
    before = note.text_content()
    page.select_option("[data-param=outcome]", "ood_change")
    page.wait_for_function("() => !document.querySelector('#scatter-1 .mark-symbol path')")
    assert title.text_content() == "change on other tasks against iimm"
    assert note.text_content() != before
    assert page.locator("#scatter-1 .note").text_content().strip() == "Nothing to show."
    page.select_option("[data-param=outcome]", "accuracy")
    page.select_option("[data-param=measure]", "modality_gap")
    page.wait_for_function(
        "() => document.querySelector('#scatter-0 .note').textContent.includes('constant')"
    )
    drawn = page.locator("#curves-0 .mark-line path").first.get_attribute("d")
    page.select_option("[data-param=dataset]", "coins")
    page.wait_for_function(
        "d => document.querySelector('#curves-0 .mark-line path').getAttribute('d') !== d",
        arg=drawn,
    )
    assert page.seen["errors"] == []


def test_sorts_a_table_by_a_column(page):
    def column(key: str) -> list[str]:
        return page.eval_on_selector(
            f"#results-1 th[data-key={key}]",
            """head => [...head.closest("table").tBodies[0].rows]
                       .map(row => row.cells[head.cellIndex].dataset.value)""",
        )

    head = page.locator("#results-1 th[data-key=accuracy]")
    before = column("accuracy")
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert column("accuracy") == sorted(before, key=float) != before
    assert head.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert column("accuracy") == sorted(before, key=float, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    page.click("#results-1 th[data-key=ood_change] button")
    changes = column("ood_change")
    assert changes[3:] == ["", "", ""] and changes[:3] == sorted(changes[:3], key=float)
    assert head.get_attribute("aria-sort") is None


def test_a_table_downloads_as_csv(page, report):
    with page.expect_download() as download:
        page.click("[data-csv=measures]")
    assert download.value.suggested_filename == "measures.csv"
    read = pd.read_csv(download.value.path())
    measured = pd.read_parquet(report.parent / "analysis" / "measures.parquet")
    expected = measured[["model", "dataset", "n_train", *MEASURES]]
    pd.testing.assert_frame_equal(read, expected, check_dtype=False)


def contrast(page, selector: str) -> float:
    """Contrast of an element's ink with the page, by WCAG's formula."""
    ink, paper = page.evaluate(
        """s => [getComputedStyle(document.querySelector(s)).fill,
                 getComputedStyle(document.body).backgroundColor]""",
        selector,
    )
    levels = []
    for colour in (ink, paper):
        rgb = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        levels.append(float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)
    return max(levels) / min(levels)


def test_figures_are_legible_in_light_dark_and_print(page):
    seen = set()
    for media in [
        {"color_scheme": "light"},
        {"color_scheme": "dark"},
        {"color_scheme": "dark", "media": "print"},
    ]:
        page.emulate_media(**media)
        assert contrast(page, "#heat-0 .role-axis-label text") > 7, media
        assert contrast(page, "#scatter-0 .mark-symbol path") > 3, media
        seen.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(seen) == 2  # paper is white, however dark the screen


@pytest.mark.parametrize(("width", "media"), [(390, "screen"), (1280, "screen"), (794, "print")])
def test_nothing_overflows(browser, tmp_path, width, media):
    long = [f"{name}-with-a-rather-long-name" for name in NAMES]
    path = build(tmp_path, names=long, methods=("full", "lora", "linear_probe"))
    page = open_page(browser, path, viewport={"width": width, "height": 900})
    page.emulate_media(media=media)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.seen["errors"] == []
    page.close()


def test_names_in_figures_are_data(browser, tmp_path):
    """A model's name stands in the figures' JSON, inside a script element."""
    path = build(tmp_path, models=(f"</script>{EVIL}",))
    assert EVIL not in path.read_text()
    page = open_page(browser, path)
    assert EVIL in page.get_attribute("#heat-0 .chart", "aria-label")
    assert page.seen["errors"] == []
    page.close()


def test_one_epoch_is_a_point(browser, tmp_path):
    study = make_study(tmp_path, methods=("full",))
    epochs = pq.read_table(study["epochs"][0])
    write_parquet(epochs.filter(pc.equal(epochs["epoch"], 1)), study["epochs"][0], {})
    build_report(**study, output=tmp_path / "report.html", title="Short")
    page = open_page(browser, tmp_path / "report.html")
    assert marks(page, "curves-0") >= 4
    assert page.seen["errors"] == []
    page.close()


def test_a_shifted_test_is_a_column_and_an_outcome(browser, tmp_path):
    study = make_study(tmp_path, methods=("full",))
    add_shifted_test(tmp_path, study)
    build_report(**study, output=tmp_path / "report.html", title="Shifted")
    page = open_page(browser, tmp_path / "report.html")
    assert marks(page, "heat-0") == 4 * 4  # three datasets and a shifted test
    page.select_option("[data-param=outcome]", "shifted_change")
    page.wait_for_function(
        "() => document.querySelector('#scatter-0 .note').textContent.includes('n = 1')"
    )
    assert page.seen["errors"] == []
    page.close()


@pytest.mark.parametrize("names", [NAMES[:1], NAMES[:2]])
def test_few_datasets_draw_without_errors(browser, tmp_path, names):
    page = open_page(browser, build(tmp_path, names=names, methods=("linear_probe", "full")))
    assert marks(page, "heat-0") and marks(page, "scatter-0") and marks(page, "curves-1")
    assert page.seen["errors"] == []
    page.close()
