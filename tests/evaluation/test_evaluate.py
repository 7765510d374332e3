"""Evaluation of zero-shot, cached and fine-tuned models on a small task and its shifted test."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from checkout import CLIP_MINI
from foretune.analysis.study_tables import (
    CALIBRATION,
    gain_over_zero_shot_error,
    join_outcomes,
    summarize_tasks,
)
from foretune.core.errors import ForetuneError
from foretune.core.files import digest_file
from foretune.core.parquet import read_metadata, write_parquet
from foretune.data.prepare import prepare_shifted_test
from foretune.data.prepared import read_manifest
from foretune.encoders.cache import normalize_rows, read_task_embeddings
from foretune.encoders.loading import load_model
from foretune.evaluation import finetuned
from foretune.evaluation.calibration import fit_temperature
from foretune.evaluation.finetuned import BaseModel, FineTunedOutputs, evaluate_model
from foretune.evaluation.on_embeddings import evaluate_adapter, evaluate_probe, evaluate_zero_shot
from foretune.evaluation.scores import EvaluationOutputs, EvaluationTest
from foretune.measures.compute import compute_measures
from foretune.training.clip_adapter import StackedAdapters
from foretune.training.methods import describe_trained_weights, make_trainable


@pytest.fixture
def untuned(tmp_path):
    """A selection whose trained weights are the base model's."""
    return write_selection(tmp_path, get_base_weights(), method="full", dataset="mnist")


def get_base_weights() -> dict:
    model, _, _ = load_model(CLIP_MINI)
    return {name: tensor.detach().contiguous() for name, tensor in model.named_parameters()}


def get_tests(small_task) -> list[EvaluationTest]:
    """Return the two tests of the small task: its own and the shifted one."""
    texts = small_task / "embeddings/text.parquet"
    return [
        EvaluationTest(
            small_task / "dataset" / name, small_task / "embeddings" / name / "test.parquet", texts
        )
        for name in ("", "shifted/few")
    ]


def get_outputs(folder) -> EvaluationOutputs:
    tables = (folder / f"{name}.parquet" for name in ("rows", "classes", "confusions"))
    return EvaluationOutputs(folder / "predictions", *tables)


def write_selection(folder, weights, **run) -> Path:
    """Write a selection of these weights, as select_trial does; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    described = describe_trained_weights("full", {"towers": "both"})
    save_file(weights, folder / "trained_weights.safetensors", described)
    sha256 = digest_file(folder / "trained_weights.safetensors")
    run |= {
        "model": "clip_mini",
        "trained_weights": str(folder / "trained_weights.safetensors"),
        "sha256": sha256,
    }
    (folder / "best.json").write_text(json.dumps(run))
    return folder / "best.json"


def evaluate(selections, small_task, tmp_path, code="c", wise_ft=(), tests=(), scaling=False):
    if not (tmp_path / "base").exists():
        (tmp_path / "base").mkdir(parents=True)
        (tmp_path / "base/mnist").symlink_to(small_task / "embeddings")
    base = BaseModel(CLIP_MINI, tmp_path / "base", tmp_path / "prepared")
    outputs = FineTunedOutputs(**vars(get_outputs(tmp_path)), drift=tmp_path / "drift.parquet")
    tests = tests or get_tests(small_task)
    evaluate_model(selections, base, tests, outputs, code, wise_ft, scaling, lambda line: None)
    return pd.read_parquet(tmp_path / "rows.parquet")


def test_evaluate_model_of_base_weights_agrees_with_evaluate_zero_shot(
    untuned, small_task, tmp_path
):
    evaluate_zero_shot("clip_mini", get_tests(small_task), get_outputs(tmp_path / "zero"))
    zero_shot = pd.read_parquet(tmp_path / "zero/rows.parquet")
    assert set(zero_shot.method) == {"zero_shot"} and zero_shot.trained_on.isna().all()
    rows = evaluate([untuned], small_task, tmp_path)
    assert list(rows.accuracy) == list(zero_shot.accuracy)
    assert list(rows.split) == ["test", "few"] and list(rows.n) == [50, 10]
    assert set(rows.evaluated_on) == {"mnist"} and set(rows.chance) == {0.1}
    assert set(rows.wise_ft) == {1.0} and zero_shot.wise_ft.isna().all()
    files = zip(zero_shot.predictions, rows.predictions, strict=True)
    for test, (from_cache, from_pixels) in zip(get_tests(small_task), files, strict=True):
        kept = pd.read_parquet(tmp_path / "zero/predictions" / from_cache)
        split = pd.read_parquet(test.folder / "test.parquet")
        assert list(kept.id) == list(split.id) and list(kept.label) == list(split.label)
        recomputed = pd.read_parquet(tmp_path / "predictions" / from_pixels)
        pd.testing.assert_frame_equal(kept, recomputed, rtol=1e-3, atol=1e-4)
    by_class = pd.read_parquet(tmp_path / "zero/classes.parquet")
    pd.testing.assert_frame_equal(
        by_class.drop(columns=["method", "wise_ft", "trained_on"]),
        pd.read_parquet(tmp_path / "classes.parquet").drop(
            columns=["method", "wise_ft", "trained_on"]
        ),
    )
    assert rows.test_digest.nunique() == 2


def test_evaluate_model_fits_a_temperature_on_validation_images(
    untuned, small_task, tmp_path, forward_passes
):
    plain = evaluate([untuned], small_task, tmp_path)
    assert plain.temperature.isna().all() and plain.nll_scaled.isna().all()
    forward_passes.clear()
    rows = evaluate([untuned], small_task, tmp_path, scaling=True)
    assert forward_passes == [10, 50, 10, 90]  # the validation images first, the drift last
    images, texts = read_task_embeddings(
        small_task / "embeddings", "val", read_manifest(small_task / "dataset")["digest"]
    )
    cosines = normalize_rows(images.vectors) @ normalize_rows(texts.vectors).T
    scale, labels = texts.metadata["logit_scale"], images.columns["label"]
    expected = fit_temperature(cosines, scale, labels)
    assert list(rows.temperature) == pytest.approx([expected] * 2, rel=1e-3)
    unscaled = ["accuracy", "ece", "nll"]
    pd.testing.assert_frame_equal(rows[unscaled], plain[unscaled])
    assert not (rows.predictions == plain.predictions).any()
    # The kept predictions know their temperature.
    forward_passes.clear()
    pd.testing.assert_frame_equal(rows, evaluate([untuned], small_task, tmp_path, scaling=True))
    assert forward_passes == []


def test_evaluate_model_keeps_tests_of_the_same_images_apart(untuned, small_task, tmp_path):
    """Two tests have the images of the third: one in another order, one in part."""
    source = pq.read_table(small_task / "source.parquet").slice(100)
    tests = []
    for name, table in (("own", source), ("reversed", source[::-1]), ("part", source.slice(0, 20))):
        file, folder = tmp_path / f"{name}.parquet", tmp_path / name
        write_parquet(table, file, read_metadata(small_task / "source.parquet"))
        prepare_shifted_test(name, {"parquet": file}, small_task / "dataset", folder)
        # The analysis recognizes equal tests by this digest, in any order.
        manifest = json.loads((folder / "dataset.json").read_text()) | {"test_digest": "equal"}
        (folder / "dataset.json").write_text(json.dumps(manifest))
        tests.append(EvaluationTest(folder, texts=small_task / "embeddings/text.parquet"))
    rows = evaluate([untuned], small_task, tmp_path, tests=tests)
    own, backwards, part = rows.to_dict("records")
    assert (own["n"], backwards["n"], part["n"]) == (50, 50, 20)
    assert own["accuracy"] == backwards["accuracy"] > 0.5
    predictions = pd.read_parquet(tmp_path / "predictions" / own["predictions"])
    assert part["accuracy"] == (predictions.label == predictions.predicted)[:20].mean()


@pytest.fixture
def forward_passes(monkeypatch):
    """A list that collects the number of images in each forward pass of an image tower."""
    passes, encode_images = [], finetuned.encode_images

    def count_and_encode(model, preprocess, images, *size):
        passes.append(len(images))
        return encode_images(model, preprocess, images, *size)

    monkeypatch.setattr(finetuned, "encode_images", count_and_encode)
    return passes


def test_evaluate_model_predicts_once_per_checkpoint_test_coefficient_and_code(
    untuned, small_task, tmp_path, forward_passes
):
    def count_images(**changes) -> list[int]:
        forward_passes.clear()
        evaluate([untuned], small_task, tmp_path, **changes)
        return list(forward_passes)

    # The drift is measured on the 90 training images.
    assert count_images() == [50, 10, 90]
    assert count_images() == []
    assert count_images(code="other") == [50, 10, 90]
    assert count_images(wise_ft=[0.5]) == [50, 10]
    assert count_images(wise_ft=[0.5, 0.9]) == [50, 10]
    assert count_images() == []


def write_disturbed_selection(tmp_path, number, **run) -> Path:
    """Write a selection whose weights differ from the base model's in one projection."""
    weights, name = get_base_weights(), ("visual.proj", "text_projection")[number % 2]
    torch.manual_seed(number)
    weights[name] += 4 * weights[name].std() * torch.randn_like(weights[name])
    run = {"method": "full", "dataset": f"task{number}", **run}
    return write_selection(tmp_path / str(number), weights, **run)


def test_evaluate_model_keeps_nothing_of_the_checkpoint_before(untuned, small_task, tmp_path):
    selections = [write_disturbed_selection(tmp_path, number) for number in range(2)]
    together = evaluate([*selections, untuned], small_task, tmp_path)
    assert len(list((tmp_path / "predictions").glob("*.parquet"))) == 6
    # Images are prepared once for all checkpoints: of two tests, and the training images of one.
    assert len(list((tmp_path / "prepared").glob("*.npy"))) == 3
    for best in (*selections, untuned):
        alone = evaluate([best], small_task, tmp_path, code="alone")
        same = together[together.trained_on == alone.trained_on[0]]
        alone, same = (frame.drop(columns="predictions") for frame in (alone, same))
        pd.testing.assert_frame_equal(alone, same.reset_index(drop=True), check_exact=True)


def test_evaluate_model_interpolates_weights_from_zero_shot_to_fine_tuned(small_task, tmp_path):
    evaluate_zero_shot("clip_mini", get_tests(small_task), get_outputs(tmp_path / "zero"))
    zero_shot = pd.read_parquet(tmp_path / "zero/rows.parquet")
    best = write_disturbed_selection(tmp_path, 0)
    rows = evaluate([best], small_task, tmp_path, wise_ft=[0, 0.5])
    assert list(rows.wise_ft) == [0, 0, 0.5, 0.5, 1, 1]
    assert list(rows.accuracy[:2]) == list(zero_shot.accuracy)
    whole = evaluate([best], small_task, tmp_path, code="alone")
    assert list(rows.accuracy[4:]) == list(whole.accuracy)
    # Coefficient 0.5 is the mean of the weights.
    base, tuned = get_base_weights(), load_file(tmp_path / "0/trained_weights.safetensors")
    halves = {name: (base[name] + tuned[name]) / 2 for name in base}
    half = write_selection(tmp_path / "half", halves, method="full", dataset="task0")
    rows_of_half = evaluate([half], small_task, tmp_path)
    assert list(rows_of_half.accuracy) == list(rows.accuracy[2:4])
    assert rows.accuracy.nunique() > 2


def test_evaluate_model_writes_the_drift_of_the_tasks_embeddings(untuned, small_task, tmp_path):
    evaluate([untuned], small_task, tmp_path)
    (row,) = pd.read_parquet(tmp_path / "drift.parquet").to_dict("records")
    assert (row["model"], row["method"], row["dataset"]) == ("clip_mini", "full", "mnist")
    assert row["iimm_before"] == pytest.approx(row["iimm_after"], abs=1e-6)
    assert row["mean_displacement"] == pytest.approx(0, abs=1e-5) and row["wasserstein_n"] == 90
    evaluate([write_disturbed_selection(tmp_path, 0, dataset="mnist")], small_task, tmp_path)
    (row,) = pd.read_parquet(tmp_path / "drift.parquet").to_dict("records")
    digest = read_manifest(small_task / "dataset")["digest"]
    before, texts = read_task_embeddings(small_task / "embeddings", "train", digest)
    measured = compute_measures(before.vectors, texts.vectors, before.columns["label"])
    assert row["iimm_before"] == pytest.approx(measured["iimm"])
    assert 0.01 < abs(row["iimm_change"]) <= min(row["wasserstein_bound"], row["bound"])


def test_evaluate_model_measures_the_drift_of_a_sample(
    small_task, tmp_path, forward_passes, monkeypatch
):
    run = write_disturbed_selection(tmp_path, 0, dataset="mnist")
    evaluate([run], small_task, tmp_path / "all")
    monkeypatch.setattr(finetuned, "DRIFT_SAMPLE", 60)
    forward_passes.clear()
    evaluate([run], small_task, tmp_path / "some")
    assert forward_passes == [50, 10, 60]
    (whole,), (sample,) = (
        pd.read_parquet(tmp_path / name / "drift.parquet").to_dict("records")
        for name in ("all", "some")
    )
    assert sample["wasserstein_n"] == 60
    for name in ("iimm_before", "iimm_change", "mean_displacement"):
        assert sample[name] != whole[name] and sample[name] == pytest.approx(whole[name], rel=0.2)


def test_evaluate_model_merges_low_rank_checkpoints(small_task, tmp_path):
    model, _, _ = load_model(CLIP_MINI)
    settings = {"towers": "both", "rank": 2, "alpha": 8, "projections": "qv"}
    trainable = make_trainable(model, "lora", settings)
    torch.manual_seed(0)
    low_rank = {
        name: torch.randn_like(parameter) * 0.2 for name, parameter in trainable.parameters.items()
    }
    path = write_selection(tmp_path / "lora", low_rank, method="lora", dataset="mnist")
    run = json.loads(path.read_text())
    save_file(low_rank, run["trained_weights"], describe_trained_weights("lora", settings))
    path.write_text(json.dumps(run | {"sha256": digest_file(run["trained_weights"])}))
    with torch.no_grad():
        for name, parameter in trainable.parameters.items():
            parameter.copy_(low_rank[name])
    trainable.merge()
    merged = {name: tensor.detach().contiguous() for name, tensor in model.named_parameters()}
    whole = write_selection(tmp_path / "whole", merged, method="full", dataset="mnist")
    rows = [evaluate([best], small_task, tmp_path) for best in (path, whole)]
    assert list(rows[0].accuracy) == list(rows[1].accuracy)
    base = write_selection(tmp_path / "untuned", get_base_weights(), method="full", dataset="mnist")
    assert rows[0].accuracy[0] != evaluate([base], small_task, tmp_path).accuracy[0]


def test_evaluate_probe_covers_the_shifted_tests_of_its_task(small_task, tmp_path):
    tests = get_tests(small_task)
    weight = np.zeros((tests[0].read_images().vectors.shape[1], 10), np.float32)
    bias = np.eye(10, dtype=np.float32)[7]  # predicts "7" for every image
    weights = {"weight": torch.tensor(weight), "bias": torch.tensor(bias)}
    best = write_selection(tmp_path, weights, method="linear_probe", dataset="mnist")
    evaluate_probe([best], tests, get_outputs(tmp_path))
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert list(rows.split) == ["test", "few"] and set(rows.trained_on) == {"mnist"}
    labels = [test.read_images().columns["label"] for test in tests]
    assert list(rows.accuracy) == [(column == 7).mean() for column in labels]
    assert set(rows.wise_ft) == {1.0}
    # The probe is right for one of the classes that occur in each test.
    present = [len(np.unique(column)) for column in labels]
    assert list(rows.mean_class_accuracy) == [
        1 / n if 7 in column else 0 for n, column in zip(present, labels, strict=True)
    ]
    by_class = pd.read_parquet(tmp_path / "classes.parquet")
    assert list(by_class.groupby("split", sort=False).size()) == present
    for split, column in zip(["test", "few"], labels, strict=True):
        part = by_class[by_class.split == split].set_index("class")
        counts = zip(*np.unique(column, return_counts=True), strict=True)
        assert part.n.to_dict() == {str(label): n for label, n in counts}
        assert part.accuracy.to_dict() == {name: float(name == "7") for name in part.index}
    kept = pd.read_parquet(tmp_path / "predictions" / rows.predictions[0])
    assert set(kept.predicted) == {7} and list(kept.label) == list(labels[0])


def make_adapter_weights(seed, hidden=8, ratio=0.9) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    shapes = {"down": (hidden, 128), "up": (128, hidden)}
    weights = {f"{side}.{name}": torch.randn(shape) for side in ("image", "text")
               for name, shape in shapes.items()}  # fmt: skip
    return {**weights, "ratio": torch.tensor(ratio, dtype=torch.float64)}


def test_evaluate_adapter_covers_every_test_and_agrees_with_training(small_task, tmp_path):
    adapters = [make_adapter_weights(seed) for seed in (0, 1)]
    selections = [
        write_selection(tmp_path / str(i), weights, method="clip_adapter", dataset=f"task{i}")
        for i, weights in enumerate(adapters)
    ]
    tests = get_tests(small_task)
    evaluate_adapter(selections, tests, get_outputs(tmp_path))
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert list(rows.trained_on) == ["task0", "task0", "task1", "task1"]
    assert list(rows.split) == ["test", "few"] * 2 and rows.predictions.nunique() == 4
    # The adapters of the training code, which run in torch, predict the same.
    expected = []
    for weights in adapters:
        order = ("image.down", "image.up", "text.down", "text.up")
        layout = [weights[name].T if name.endswith("up") else weights[name] for name in order]
        captions = torch.from_numpy(tests[0].read_captions().vectors.copy())
        trained = StackedAdapters([{}], 8, captions, 100.0, 0.9, seed=0)
        trained.parameters = [matrix[None] for matrix in layout]
        for test in tests:
            vectors = torch.from_numpy(test.read_images().vectors.copy())
            expected.append(trained.logits(vectors)[0].argmax(dim=0).tolist())
    kept = [
        list(pd.read_parquet(tmp_path / "predictions" / name).predicted)
        for name in rows.predictions
    ]
    assert kept == expected
    assert kept[0] != kept[2]


def test_evaluate_adapter_of_zero_weights_is_the_zero_shot_model(small_task, tmp_path):
    zeros = {name: torch.zeros_like(weight) for name, weight in make_adapter_weights(0).items()}
    weights = {**zeros, "ratio": torch.tensor(0.2, dtype=torch.float64)}
    best = write_selection(tmp_path / "adapter", weights, method="clip_adapter", dataset="mnist")
    evaluate_adapter([best], get_tests(small_task), get_outputs(tmp_path))
    evaluate_zero_shot("clip_mini", get_tests(small_task), get_outputs(tmp_path / "zero"))
    rows, zero_shot = (
        pd.read_parquet(folder / "rows.parquet") for folder in (tmp_path, tmp_path / "zero")
    )
    assert list(rows.accuracy) == list(zero_shot.accuracy)


def test_cached_models_have_the_temperature_of_their_tasks_validation_images(small_task, tmp_path):
    cached = small_task / "embeddings/val.parquet"
    tests = [dataclasses.replace(test, validation=cached) for test in get_tests(small_task)]
    images, texts = tests[0].read_validation(), tests[0].read_captions()
    layer = torch.randn(images.vectors.shape[1], 10)
    weights = {"weight": layer, "bias": torch.zeros(10)}
    probe = write_selection(tmp_path / "1", weights, method="linear_probe", dataset="mnist")
    weights = {name: 0 * tensor for name, tensor in make_adapter_weights(0).items()}
    adapter = write_selection(tmp_path / "2", weights, method="clip_adapter", dataset="mnist")
    for name, evaluate_cached, first in (
        ("zero_shot", evaluate_zero_shot, "clip_mini"), ("linear_probe", evaluate_probe, [probe]),
        ("clip_adapter", evaluate_adapter, [adapter]),
    ):  # fmt: skip
        evaluate_cached(first, tests, get_outputs(tmp_path / name))
        rows = pd.read_parquet(tmp_path / name / "rows.parquet")
        assert set(rows.method) == {name} and rows.nll_scaled.notna().all()
        logits, scale = images.vectors @ layer.numpy(), 1.0
        if name != "linear_probe":  # an adapter without weights is the zero-shot model
            logits = normalize_rows(images.vectors) @ normalize_rows(texts.vectors).T
            scale = texts.metadata["logit_scale"]
        expected = fit_temperature(logits, scale, images.columns["label"])
        assert list(rows.temperature) == pytest.approx([expected] * 2, rel=1e-3)


def test_evaluate_zero_shot_refuses_captions_of_another_version(small_task, tmp_path):
    folder = tmp_path / "few"
    shutil.copytree(small_task / "dataset/shifted/few", folder)
    manifest = json.loads((folder / "dataset.json").read_text()) | {"parent": "older"}
    (folder / "dataset.json").write_text(json.dumps(manifest))
    shifted = dataclasses.replace(get_tests(small_task)[1], folder=folder)
    with pytest.raises(ForetuneError, match=r"text\.parquet: made from another dataset"):
        evaluate_zero_shot("clip_mini", [shifted], get_outputs(tmp_path))


def test_evaluate_without_caches_is_a_readable_error(small_task, tmp_path):
    test = EvaluationTest(small_task / "dataset")
    with pytest.raises(ValueError, match="needs embeddings of the images"):
        evaluate_zero_shot("clip_mini", [test], get_outputs(tmp_path))


def test_read_selection_refuses_weights_that_were_not_selected(untuned, small_task, tmp_path):
    (tmp_path / "trained_weights.safetensors").write_bytes(b"other")
    with pytest.raises(ForetuneError, match="these are not the weights"):
        evaluate([untuned], small_task, tmp_path)
    (tmp_path / "trained_weights.safetensors").unlink()
    with pytest.raises(ForetuneError, match=r"trained_weights\.safetensors: the file is missing"):
        evaluate([untuned], small_task, tmp_path)


def test_evaluate_model_refuses_weights_that_the_model_lacks(untuned, small_task, tmp_path):
    weights = {"visual.nothing": torch.zeros(1)}
    foreign = write_selection(tmp_path / "foreign", weights, method="full", dataset="mnist")
    with pytest.raises(
        ForetuneError, match=r"trained_weights\.safetensors: not trained on this model"
    ):
        evaluate([foreign], small_task, tmp_path)


def evaluations():
    rows = [("zero_shot", None, "a", 0.5), ("zero_shot", None, "b", 0.8),
            ("full", "a", "a", 0.9), ("full", "a", "b", 0.6),
            ("full", "b", "b", 0.7), ("full", "b", "a", 0.6),
            ("linear_probe", "a", "a", 0.7)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["method", "trained_on", "evaluated_on", "accuracy"])
    digests = "test of " + frame.evaluated_on
    frame = frame.assign(model="m", split="test", n=10, chance=0.5, test_digest=digests)
    return frame.assign(**dict.fromkeys(CALIBRATION, 0.1), wise_ft=1.0)


def tasks_of(frame):
    """The tasks of evaluations, indexed by method and dataset."""
    runs = frame[frame.method != "zero_shot"][["method", "trained_on"]].drop_duplicates()
    selected = runs.rename(columns={"trained_on": "dataset"}).assign(model="m", val_accuracy=1)
    measures = pd.DataFrame({"model": "m", "dataset": ["a", "b"], "iimm": [0.2, 0.1]})
    tasks = summarize_tasks(join_outcomes(frame), selected, measures)
    return tasks.set_index(["method", "dataset"])


def test_gain_and_forgetting_by_hand():
    tasks = tasks_of(evaluations())
    gain = tasks.gain_over_zero_shot_error
    assert gain["full", "a"] == pytest.approx(0.4 / 0.5)
    assert gain["full", "b"] == pytest.approx(-0.1 / 0.2)
    assert gain["linear_probe", "a"] == pytest.approx(0.2 / 0.5)
    assert tasks.ood_change["full", "a"] == pytest.approx(0.6 - 0.8)
    assert tasks.ood_change["full", "b"] == pytest.approx(0.6 - 0.5)
    assert np.isnan(tasks.ood_change["linear_probe", "a"])
    assert tasks.iimm["full", "b"] == 0.1
    assert tasks.shifted_change.isna().all()


def shifted_evaluations():
    """As above, and a has two shifted tests: `same` is b's test, `other` is of other images."""
    rows = [("zero_shot", None, "same", 0.7), ("zero_shot", None, "other", 0.2),
            ("full", "a", "same", 0.75), ("full", "a", "other", 0.1), ("full", "b", "same", 0.7),
            ("full", "b", "other", 0.9), ("linear_probe", "a", "same", 0.8),
            ("linear_probe", "a", "other", 0.2)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["method", "trained_on", "split", "accuracy"])
    digests = frame.split.map({"same": "test of b", "other": "of other"})
    frame = frame.assign(model="m", evaluated_on="a", n=10, chance=0.5, test_digest=digests)
    frame = frame.assign(**dict.fromkeys(CALIBRATION, 0.1), wise_ft=1.0)
    return pd.concat([evaluations(), frame], ignore_index=True)


def test_shifted_change_by_hand_and_what_forgetting_leaves_out():
    frame = shifted_evaluations()
    tasks = tasks_of(frame)
    assert tasks.shifted_change["full", "a"] == pytest.approx((0.05 - 0.1) / 2)
    assert tasks.shifted_change["linear_probe", "a"] == pytest.approx((0.1 + 0) / 2)
    assert np.isnan(tasks.shifted_change["full", "b"])
    # b's test is a shifted test of a, so that neither is another task to the other.
    assert np.isnan(tasks.ood_change["full", "a"]) and np.isnan(tasks.ood_change["full", "b"])
    assert tasks.accuracy["full", "a"] == 0.9 and len(tasks) == 3
    # It is the images that count, not the names.
    frame.loc[frame.split == "same", "test_digest"] = "of others still"
    tasks = tasks_of(frame)
    assert tasks.ood_change["full", "a"] == pytest.approx(0.6 - 0.8)
    assert tasks.ood_change["full", "b"] == pytest.approx(0.6 - 0.5)


def test_gain_without_zero_shot_error_is_undefined():
    assert np.isnan(gain_over_zero_shot_error(np.array([0.9]), np.array([1.0])))
