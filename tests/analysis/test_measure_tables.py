"""Tables of the measures: NCTI over models, intervals, curves, and how many images suffice."""

import math

import numpy as np
import pandas as pd
import pytest

from foretune.analysis.measure_tables import count_enough_images, tabulate_curves, tabulate_measures


def make_file(model, dataset, terms=None, iimm=0.5, curve=()):
    """Return the content of a measures file; terms: seli, ncc and vc of NCTI."""
    detail = {"interval": None, "variants": {}, "notes": [], "curve": []}
    details = {"iimm": detail | {"interval": [iimm - 0.1, iimm + 0.1], "curve": list(curve)}}
    measures = {"iimm": iimm}
    if terms:
        terms = dict(zip(("seli", "ncc", "vc"), terms, strict=True))
        details["ncti"] = detail | {"variants": terms, "interval": [0, 1], "notes": ["rough"]}
        measures["ncti"] = terms["ncc"] + terms["seli"] - terms["vc"]
    return {"model": model, "dataset": dataset, "n": 100, "measures": measures,
            "details": details, "notes": []}  # fmt: skip


def test_tabulate_measures_has_values_intervals_variants_and_notes():
    frame, names = tabulate_measures([make_file("a", "x", (10, 0.5, 3))])
    assert names == ["iimm", "ncti"]
    row = frame.iloc[0]
    assert (row["iimm.low"], row["iimm.high"]) == (0.4, 0.6)
    assert row["ncti.seli"] == 10 and row.ncti == 7.5 and row.n_train == 100
    assert row.notes == "ncti: rough"


def test_tabulate_measures_scales_ncti_over_the_models_of_a_dataset():
    files = [
        make_file("a", "x", (10, 0.5, 3)),
        make_file("b", "x", (20, 0.9, 3)),
        make_file("c", "x", (15, 0.6, 3)),
        make_file("a", "alone", (10, 0.5, 3)),
    ]
    frame, _ = tabulate_measures(files)
    # seli and ncc are scaled to 0 to 1; vc is equal for all models and counts 0.
    assert list(frame.ncti) == pytest.approx([0, 2, 0.75, 7.5])
    assert list(frame["ncti.seli"]) == [10, 20, 15, 10]
    assert frame["ncti.low"].isna().tolist() == [True, True, True, False]


def test_tabulate_measures_does_not_compare_embeddings_from_elsewhere():
    ours = make_file("a", "x", (10, 0.5, 3))
    elsewhere = make_file("?", "x", (1, 1, 1)) | {"embeddings": "x"}
    del elsewhere["model"], elsewhere["dataset"]
    frame, _ = tabulate_measures([ours, elsewhere])
    assert list(frame.dataset) == ["x", "x"] and frame.model.isna().tolist() == [False, True]
    assert list(frame.ncti) == [7.5, 1]


def test_tabulate_measures_makes_undefined_values_nan():
    frame, _ = tabulate_measures(
        [make_file("a", "x", iimm=0.5), make_file("b", "x") | {"measures": {}}]
    )
    assert frame.iimm.dtype == float and np.isnan(frame.iimm[1])


def make_curve(*deviations):
    """Return a curve with these deviations at 10, 20, 40, ... images."""
    return [{"n": 10 * 2**k, "mean": 0.5, "deviation": d} for k, d in enumerate(deviations)]


def test_tabulate_curves_divides_by_the_spread_between_datasets():
    files = [
        make_file("a", "x", iimm=0.4, curve=make_curve(0.1, 0.02)),
        make_file("a", "y", iimm=0.6),
        make_file("b", "x", curve=make_curve(0.1)),
    ]
    curves = tabulate_curves(files)
    spread = np.std([0.4, 0.6], ddof=1)
    assert list(curves.relative[:2]) == pytest.approx([0.1 / spread, 0.02 / spread])
    assert np.isnan(curves.relative[2])  # model b has one dataset
    assert tabulate_curves([make_file("a", "x"), make_file("a", "y")]).empty


def test_tabulate_curves_has_no_relative_deviation_for_a_constant_measure():
    files = [make_file("a", name, iimm=value, curve=make_curve(0.1)) for name, value in
            [("x", 0.1 + 0.2), ("y", 0.3)]]  # fmt: skip
    assert tabulate_curves(files).relative.isna().all()


def test_count_enough_images_requires_every_dataset_to_stay_within():
    curves = {  # measure -> dataset -> relative deviations at 10, 20 and 40 images
        "falls": {"x": [0.5, 0.09, 0.01]},
        "small only by chance": {"x": [0.05, 0.2, 0.01]},
        "later on y": {"x": [0.5, 0.09, 0.01], "y": [0.5, 0.11, 0.01]},
        "stays": {"x": [0.5, 0.3, 0.2]},
    }
    rows = [
        {"model": "a", "measure": measure, "dataset": dataset, "n": 10 * 2**k, "relative": value}
        for measure, datasets in curves.items()
        for dataset, values in datasets.items()
        for k, value in enumerate(values)
    ]
    assert count_enough_images(pd.DataFrame(rows)).loc["a"].to_dict() == {
        "falls": 20, "small only by chance": 40, "later on y": 40, "stays": math.inf,
    }  # fmt: skip
    assert count_enough_images(pd.DataFrame(rows)[:0]).empty
