import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from checkout import CLIP_MINI
from foretune.analysis.study_tables import gain_over_zero_shot_error, join_outcomes, summarize_tasks
from foretune.core.errors import ForetuneError
from foretune.core.files import digest_file
from foretune.data.prepared import read_manifest
from foretune.encoders.cache import read_embeddings, read_task_embeddings
from foretune.encoders.loading import load_model
from foretune.evaluation import finetuned
from foretune.evaluation.finetuned import evaluate_model
from foretune.evaluation.on_embeddings import evaluate_adapter, evaluate_probe, evaluate_zero_shot
from foretune.measures.compute import compute_measures
from foretune.training.clip_adapter import StackedAdapters
from foretune.training.methods import describe_trained_weights, make_trainable


@pytest.fixture
def untuned(tmp_path):
    """A selection whose trained_weights is the base model's own weights."""
    return selection(tmp_path, own_weights(), method="full", dataset="mnist")


def own_weights() -> dict:
    model, _, _ = load_model(CLIP_MINI)
    return {name: tensor.detach().contiguous() for name, tensor in model.named_parameters()}


def both_tests(small_task):
    """Folders, images' caches and captions' caches of the two tests: its own and the shifted."""
    names = ("", "shifted/few")
    images = [small_task / "embeddings" / name / "test.parquet" for name in names]
    texts = [small_task / "embeddings/text.parquet"] * 2
    return [small_task / "dataset" / name for name in names], images, texts


def outputs(folder):
    return {
        "predictions": folder / "predictions", "output": folder / "rows.parquet",
        "classes": folder / "classes.parquet", "confusions": folder / "confusions.parquet",
    }  # fmt: skip


def selection(folder, weights, **run):
    """A selection of these weights, as select_trial leaves it."""
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


def evaluate(selections, small_task, tmp_path, code="c", wise_ft=()):
    tests, _, texts = both_tests(small_task)
    if not (tmp_path / "base").exists():
        (tmp_path / "base").mkdir()
        (tmp_path / "base/mnist").symlink_to(small_task / "embeddings")
    evaluate_model(
        selections, CLIP_MINI, list(wise_ft), tests, texts, tmp_path / "base",
        tmp_path / "prepared",
        code=code, drift=tmp_path / "drift.parquet", log=lambda line: None,
        **outputs(tmp_path),
    )  # fmt: skip
    return pd.read_parquet(tmp_path / "rows.parquet")


def test_pixels_and_caches_give_the_same_zero_shot_accuracy(untuned, small_task, tmp_path):
    evaluate_zero_shot("clip_mini", *both_tests(small_task), **outputs(tmp_path / "zero"))
    zero_shot = pd.read_parquet(tmp_path / "zero/rows.parquet")
    assert set(zero_shot.method) == {"zero_shot"} and zero_shot.trained_on.isna().all()
    rows = evaluate([untuned], small_task, tmp_path)
    assert list(rows.accuracy) == list(zero_shot.accuracy)
    assert list(rows.split) == ["test", "few"] and list(rows.n) == [50, 10]
    assert set(rows.evaluated_on) == {"mnist"} and set(rows.chance) == {0.1}
    assert set(rows.wise_ft) == {1.0} and zero_shot.wise_ft.isna().all()
    for test, path, by_pixels in zip(both_tests(small_task)[0], zero_shot.predictions,
                                     rows.predictions, strict=True):  # fmt: skip
        kept = pd.read_parquet(tmp_path / "zero/predictions" / path)
        split = pd.read_parquet(test / "test.parquet")
        assert list(kept.id) == list(split.id) and list(kept.label) == list(split.label)
        other = pd.read_parquet(tmp_path / "predictions" / by_pixels)
        pd.testing.assert_frame_equal(kept, other)
    by_class = pd.read_parquet(tmp_path / "zero/classes.parquet")
    pd.testing.assert_frame_equal(
        by_class.drop(columns=["method", "wise_ft", "trained_on"]),
        pd.read_parquet(tmp_path / "classes.parquet").drop(
            columns=["method", "wise_ft", "trained_on"]
        ),
    )
    assert rows.test_digest.nunique() == 2


@pytest.fixture
def forward_passes(monkeypatch):
    """The number of images that each forward pass of an image tower had."""
    passes, real = [], finetuned.encode_images

    def count(model, preprocess, images):
        passes.append(len(images))
        return real(model, preprocess, images)

    monkeypatch.setattr(finetuned, "encode_images", count)
    return passes


def test_predictions_are_made_once(untuned, small_task, tmp_path, forward_passes):
    """For each checkpoint, test, coefficient and version of the code."""

    def made(**changes):
        evaluate([untuned], small_task, tmp_path, **changes)
        made, forward_passes[:] = list(forward_passes), []
        return made

    # The 90 training images tell how far the embeddings of the task moved.
    assert [made(), made(), made(code="other")] == [[50, 10, 90], [], [50, 10, 90]]
    assert [made(wise_ft=[0.5]), made(wise_ft=[0.5, 0.9]), made()] == [[50, 10], [50, 10], []]


def disturbed(tmp_path, number, **run):
    """A selection with other weights in two layers."""
    weights, name = own_weights(), ("visual.proj", "text_projection")[number % 2]
    torch.manual_seed(number)
    weights[name] += 4 * weights[name].std() * torch.randn_like(weights[name])
    run = {"method": "full", "dataset": f"task{number}", **run}
    return selection(tmp_path / str(number), weights, **run)


def test_a_checkpoint_keeps_nothing_of_the_one_before_it(untuned, small_task, tmp_path):
    selections = [disturbed(tmp_path, number) for number in range(2)]
    together = evaluate([*selections, untuned], small_task, tmp_path)
    assert len(list((tmp_path / "predictions").glob("*.parquet"))) == 6
    # Images, once for all checkpoints: of two tests, and the training images of one.
    assert len(list((tmp_path / "prepared").iterdir())) == 3
    for best in (*selections, untuned):
        alone = evaluate([best], small_task, tmp_path, code="alone")
        same = together[together.trained_on == alone.trained_on[0]]
        alone, same = (each.drop(columns="predictions") for each in (alone, same))
        pd.testing.assert_frame_equal(alone, same.reset_index(drop=True), check_exact=True)


def test_wise_ft_goes_from_the_zero_shot_to_the_tuned_weights(small_task, tmp_path):
    evaluate_zero_shot("clip_mini", *both_tests(small_task), **outputs(tmp_path / "zero"))
    zero_shot = pd.read_parquet(tmp_path / "zero/rows.parquet")
    best = disturbed(tmp_path, 0)
    rows = evaluate([best], small_task, tmp_path, wise_ft=[0, 0.5])
    assert list(rows.wise_ft) == [0, 0, 0.5, 0.5, 1, 1]
    assert list(rows.accuracy[:2]) == list(zero_shot.accuracy)
    whole = evaluate([best], small_task, tmp_path, code="alone")
    assert list(rows.accuracy[4:]) == list(whole.accuracy)
    # Half way is the mean of the weights.
    base, tuned = own_weights(), load_file(tmp_path / "0/trained_weights.safetensors")
    halves = {name: (base[name] + tuned[name]) / 2 for name in base}
    half = selection(tmp_path / "half", halves, method="full", dataset="task0")
    rows_of_half = evaluate([half], small_task, tmp_path)
    assert list(rows_of_half.accuracy) == list(rows.accuracy[2:4])
    assert rows.accuracy.nunique() > 2


def test_the_measure_drift_the_tasks_embeddings(untuned, small_task, tmp_path):
    evaluate([untuned], small_task, tmp_path)
    (row,) = pd.read_parquet(tmp_path / "drift.parquet").to_dict("records")
    assert (row["model"], row["method"], row["dataset"]) == ("clip_mini", "full", "mnist")
    assert row["iimm_before"] == pytest.approx(row["iimm_after"], abs=1e-6)
    assert row["mean_displacement"] == pytest.approx(0, abs=1e-5) and row["wasserstein_n"] == 90
    evaluate([disturbed(tmp_path, 0, dataset="mnist")], small_task, tmp_path)
    (row,) = pd.read_parquet(tmp_path / "drift.parquet").to_dict("records")
    before, texts = read_task_embeddings(small_task / "embeddings", "train", read_manifest(
        small_task / "dataset")["digest"])  # fmt: skip
    measured = compute_measures(before.vectors, texts.vectors, before.columns["label"])
    assert row["iimm_before"] == pytest.approx(measured["iimm"])
    assert 0.01 < abs(row["iimm_change"]) <= min(row["wasserstein_bound"], row["bound"])


def test_low_rank_checkpoints_are_merged(small_task, tmp_path):
    model, _, _ = load_model(CLIP_MINI)
    settings = {"towers": "both", "rank": 2, "alpha": 8, "projections": "qv"}
    trainable = make_trainable(model, "lora", settings)
    torch.manual_seed(0)
    low_rank = {n: torch.randn_like(p) * 0.2 for n, p in trainable.parameters.items()}
    path = selection(tmp_path / "lora", low_rank, method="lora", dataset="mnist")
    run = json.loads(path.read_text())
    save_file(low_rank, run["trained_weights"], describe_trained_weights("lora", settings))
    path.write_text(json.dumps(run | {"sha256": digest_file(run["trained_weights"])}))
    with torch.no_grad():
        for name, parameter in trainable.parameters.items():
            parameter.copy_(low_rank[name])
    trainable.merge()
    merged = {n: p.detach().contiguous() for n, p in model.named_parameters()}
    whole = selection(tmp_path / "whole", merged, method="full", dataset="mnist")
    rows = [evaluate([each], small_task, tmp_path) for each in (path, whole)]
    assert list(rows[0].accuracy) == list(rows[1].accuracy)
    assert rows[0].accuracy[0] != evaluate([untuned_of(tmp_path)], small_task, tmp_path).accuracy[0]


def untuned_of(tmp_path):
    return selection(tmp_path / "untuned", own_weights(), method="full", dataset="mnist")


def test_a_probe_is_tested_on_its_own_shifted_tests(small_task, tmp_path):
    tests, images, _ = both_tests(small_task)
    weight = np.zeros((read_embeddings(images[0]).vectors.shape[1], 10), np.float32)
    bias = np.eye(10, dtype=np.float32)[7]  # says "7" to everything
    weights = {"weight": torch.tensor(weight), "bias": torch.tensor(bias)}
    best = selection(tmp_path, weights, method="linear_probe", dataset="mnist")
    evaluate_probe([best], tests, images, **outputs(tmp_path))
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert list(rows.split) == ["test", "few"] and set(rows.trained_on) == {"mnist"}
    labels = [read_embeddings(path).columns["label"] for path in images]
    assert list(rows.accuracy) == [(each == 7).mean() for each in labels]
    assert set(rows.wise_ft) == {1.0}
    # Right for one of the classes that each test has.
    present = [len(np.unique(each)) for each in labels]
    assert list(rows.mean_class_accuracy) == [
        1 / n if 7 in each else 0 for n, each in zip(present, labels, strict=True)
    ]
    by_class = pd.read_parquet(tmp_path / "classes.parquet")
    assert list(by_class.groupby("split", sort=False).size()) == present
    for split, each in zip(["test", "few"], labels, strict=True):
        part = by_class[by_class.split == split].set_index("class")
        assert part.n.to_dict() == {
            str(k): n for k, n in zip(*np.unique(each, return_counts=True), strict=True)
        }
        assert part.accuracy.to_dict() == {name: float(name == "7") for name in part.index}
    kept = pd.read_parquet(tmp_path / "predictions" / rows.predictions[0])
    assert set(kept.predicted) == {7} and list(kept.label) == list(labels[0])


def adapter_weights(seed, hidden=8, ratio=0.9):
    torch.manual_seed(seed)
    shapes = {"down": (hidden, 128), "up": (128, hidden)}
    weights = {f"{side}.{name}": torch.randn(shape) for side in ("image", "text")
               for name, shape in shapes.items()}  # fmt: skip
    return {**weights, "ratio": torch.tensor(ratio, dtype=torch.float64)}


def test_adapters_are_tested_on_every_test(small_task, tmp_path):
    every = [adapter_weights(seed) for seed in (0, 1)]
    selections = [selection(tmp_path / str(i), weights, method="clip_adapter", dataset=f"task{i}")
                  for i, weights in enumerate(every)]  # fmt: skip
    evaluate_adapter(selections, *both_tests(small_task), **outputs(tmp_path))
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert list(rows.trained_on) == ["task0", "task0", "task1", "task1"]
    assert list(rows.split) == ["test", "few"] * 2 and rows.predictions.nunique() == 4
    # The same as the adapters that were trained say, which are torch's.
    _, images, texts = both_tests(small_task)
    expected = []
    for weights in every:
        order = ("image.down", "image.up", "text.down", "text.up")
        layout = [weights[name].T if name.endswith("up") else weights[name] for name in order]
        captions = torch.from_numpy(read_embeddings(texts[0]).vectors.copy())
        trained = StackedAdapters([{}], 8, captions, 100.0, 0.9, seed=0)
        trained.parameters = [matrix[None] for matrix in layout]
        for path in images:
            vectors = torch.from_numpy(read_embeddings(path).vectors.copy())
            expected.append(trained.logits(vectors)[0].argmax(dim=0).tolist())
    kept = [list(pd.read_parquet(tmp_path / "predictions" / name).predicted)
            for name in rows.predictions]  # fmt: skip
    assert kept == expected
    assert kept[0] != kept[2]


def test_an_adapter_that_does_nothing_is_the_zero_shot_model(small_task, tmp_path):
    nothing = {name: torch.zeros_like(each) for name, each in adapter_weights(0).items()}
    weights = {**nothing, "ratio": torch.tensor(0.2, dtype=torch.float64)}
    best = selection(tmp_path / "adapter", weights, method="clip_adapter", dataset="mnist")
    evaluate_adapter([best], *both_tests(small_task), **outputs(tmp_path))
    evaluate_zero_shot("clip_mini", *both_tests(small_task), **outputs(tmp_path / "zero"))
    rows, zero_shot = (pd.read_parquet(folder / "rows.parquet")
                       for folder in (tmp_path, tmp_path / "zero"))  # fmt: skip
    assert list(rows.accuracy) == list(zero_shot.accuracy)


def test_captions_of_another_version_of_the_dataset_are_refused(small_task, tmp_path):
    test = tmp_path / "few"
    shutil.copytree(small_task / "dataset/shifted/few", test)
    manifest = json.loads((test / "dataset.json").read_text()) | {"parent": "older"}
    (test / "dataset.json").write_text(json.dumps(manifest))
    _, images, texts = both_tests(small_task)
    with pytest.raises(ForetuneError, match=r"text\.parquet: made from another dataset"):
        evaluate_zero_shot("clip_mini", [test], images[1:], texts[1:], **outputs(tmp_path))


def test_weights_that_were_not_selected_are_refused(untuned, small_task, tmp_path):
    (tmp_path / "trained_weights.safetensors").write_bytes(b"other")
    with pytest.raises(ForetuneError, match=r"trained_weights\.safetensors: not the weights"):
        evaluate([untuned], small_task, tmp_path)


def test_weights_that_the_model_lacks_are_refused(untuned, small_task, tmp_path):
    weights = {"visual.nothing": torch.zeros(1)}
    odd = selection(tmp_path / "odd", weights, method="full", dataset="mnist")
    with pytest.raises(
        ForetuneError, match=r"trained_weights\.safetensors: not trained on this model"
    ):
        evaluate([odd], small_task, tmp_path)


def evaluations():
    rows = [("zero_shot", None, "a", 0.5), ("zero_shot", None, "b", 0.8),
            ("full", "a", "a", 0.9), ("full", "a", "b", 0.6),
            ("full", "b", "b", 0.7), ("full", "b", "a", 0.6),
            ("linear_probe", "a", "a", 0.7)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["method", "trained_on", "evaluated_on", "accuracy"])
    digests = "test of " + frame.evaluated_on
    return frame.assign(model="m", split="test", n=10, chance=0.5, test_digest=digests, wise_ft=1.0)


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
    frame = frame.assign(
        model="m", evaluated_on="a", n=10, chance=0.5, test_digest=digests, wise_ft=1.0
    )
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
