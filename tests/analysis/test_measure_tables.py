"""The measures' files as tables: NCTI over models, intervals, curves, how many images suffice."""

import numpy as np
import pandas as pd
import pytest

from foretune.analysis.measure_tables import count_enough_images, tabulate_curves, tabulate_measures


def row(model, dataset, terms=None, iimm=0.5, curve=()):
    detail = {"interval": None, "variants": {}, "notes": [], "curve": []}
    details = {"iimm": detail | {"interval": [iimm - 0.1, iimm + 0.1], "curve": list(curve)}}
    measures = {"iimm": iimm}
    if terms:
        terms = dict(zip(("seli", "ncc", "vc"), terms, strict=True))
        details["ncti"] = detail | {"variants": terms, "interval": [0, 1], "notes": ["rough"]}
        measures["ncti"] = terms["ncc"] + terms["seli"] - terms["vc"]
    return {"model": model, "dataset": dataset, "n": 100, "measures": measures,
            "details": details, "notes": []}  # fmt: skip


def test_values_intervals_variants_and_notes_are_columns():
    frame, names = tabulate_measures([row("a", "x", (10, 0.5, 3))])
    assert names == ["iimm", "ncti"]
    only = frame.iloc[0]
    assert (only["iimm.low"], only["iimm.high"]) == (0.4, 0.6)
    assert only["ncti.seli"] == 10 and only.ncti == 7.5 and only.n_train == 100
    assert only.notes == "ncti: rough"


def test_ncti_is_scaled_over_the_models_of_a_dataset():
    rows = [row("a", "x", (10, 0.5, 3)), row("b", "x", (20, 0.9, 3)), row("c", "x", (15, 0.6, 3)),
            row("a", "alone", (10, 0.5, 3))]  # fmt: skip
    frame, _ = tabulate_measures(rows)
    # Each of seli and ncc from 0 to 1; vc is a tie, and counts nothing.
    assert list(frame.ncti) == pytest.approx([0, 2, 0.75, 7.5])
    assert list(frame["ncti.seli"]) == [10, 20, 15, 10]
    assert frame["ncti.low"].isna().tolist() == [True, True, True, False]


def test_embeddings_from_elsewhere_have_no_model_and_are_not_compared():
    own = row("a", "x", (10, 0.5, 3))
    elsewhere = {k: v for k, v in row("?", "x", (1, 1, 1)).items() if k not in ("model", "dataset")}
    frame, _ = tabulate_measures([own, elsewhere | {"embeddings": "x"}])
    assert list(frame.dataset) == ["x", "x"] and frame.model.isna().tolist() == [False, True]
    assert list(frame.ncti) == [7.5, 1]


def test_undefined_values_are_missing_numbers():
    frame, _ = tabulate_measures([row("a", "x", iimm=0.5), row("b", "x") | {"measures": {}}])
    assert frame.iimm.dtype == float and np.isnan(frame.iimm[1])


def points(*deviations):
    return [{"n": 10 * 2**k, "mean": 0.5, "deviation": d} for k, d in enumerate(deviations)]


def test_curves_are_relative_to_the_spread_between_datasets():
    rows = [row("a", "x", iimm=0.4, curve=points(0.1, 0.02)), row("a", "y", iimm=0.6),
            row("b", "x", curve=points(0.1))]  # fmt: skip
    curves = tabulate_curves(rows)
    spread = np.std([0.4, 0.6], ddof=1)
    assert list(curves.relative[:2]) == pytest.approx([0.1 / spread, 0.02 / spread])
    assert np.isnan(curves.relative[2])  # b has one dataset
    assert tabulate_curves([row("a", "x"), row("a", "y")]).empty


def test_a_measure_that_is_the_same_everywhere_has_no_relative_deviation():
    rows = [row("a", name, iimm=value, curve=points(0.1)) for name, value in
            [("x", 0.1 + 0.2), ("y", 0.3)]]  # fmt: skip
    assert tabulate_curves(rows).relative.isna().all()


def test_enough_is_from_where_every_dataset_stays_within():
    def curves(**relative):
        return pd.DataFrame(
            [{"dataset": name, "n": 10 * 2**k, "relative": value}
             for name, values in relative.items() for k, value in enumerate(values)],
            columns=["dataset", "n", "relative"],
        )  # fmt: skip

    assert count_enough_images(curves(x=[0.5, 0.09, 0.01])) == 20
    assert count_enough_images(curves(x=[0.05, 0.2, 0.01])) == 40  # not from a lucky point on
    assert count_enough_images(curves(x=[0.5, 0.09, 0.01], y=[0.5, 0.11, 0.01])) == 40
    assert count_enough_images(curves(x=[0.5, 0.3, 0.2])) is None
    assert count_enough_images(curves()) is None
