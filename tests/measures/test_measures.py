"""Measures by hand, by scikit-learn, by their invariances, and on degenerate input."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity, euclidean_distances

from foretune.core.errors import ForetuneError
from foretune.encoders.streams import ArraySource
from foretune.measures.compute import MEASURES, MeasureOptions, compute_measures, measure_task
from foretune.measures.registry import measure


def random_task(n=40, classes=5, width=8, seed=0):
    rng = np.random.default_rng(seed)
    images, texts = rng.normal(size=(n, width)), rng.normal(size=(classes, width))
    return images, texts, rng.integers(0, classes, n)


def test_compute_measures_of_an_example_by_hand():
    # Three images and two captions in the plane, at multiples of 90 and 45 degrees.
    half = np.sqrt(0.5)
    images = np.array([[1, 0], [0, 2], [3, 3]], dtype=np.float32)  # (1,0) (0,1) (half,half)
    texts = np.array([[1, 0], [0, 5]], dtype=np.float32)
    values = compute_measures(images, texts, np.array([0, 1, 0]))
    assert values["correct_label_alignment"] == pytest.approx((1 + 1 + half) / 3)
    assert values["inter_modal"] == pytest.approx((0 + 0 + half) / 3)
    assert values["intra_images"] == pytest.approx((0 + half + half) / 3)
    assert values["iimm"] == pytest.approx((half / 3 + 2 * half / 3) / 2)
    mean = np.array([(1 + half) / 3, (1 + half) / 3])
    assert values["modality_gap"] == pytest.approx(np.hypot(*(mean - 0.5)))


@given(st.integers(2, 30), st.integers(2, 6), st.integers(2, 10), st.integers(0, 2**32 - 1))
def test_compute_measures_equals_all_pairs_by_scikit_learn(n, classes, width, seed):
    images, texts, labels = random_task(n, classes, width, seed)
    values = compute_measures(images, texts, labels)
    cross, within = cosine_similarity(images, texts), cosine_similarity(images)
    wrong = np.ones_like(cross, bool)
    wrong[np.arange(n), labels] = False
    assert values["inter_modal"] == pytest.approx(cross[wrong].mean(), abs=1e-12)
    assert values["intra_images"] == pytest.approx(within[np.triu_indices(n, 1)].mean(), abs=1e-12)
    assert values["correct_label_alignment"] == pytest.approx(cross[~wrong].mean(), abs=1e-12)
    means = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts)]
    gap = euclidean_distances(*(x.mean(0, keepdims=True) for x in means))[0, 0]
    assert values["modality_gap"] == pytest.approx(gap, abs=1e-9)


def test_compute_measures_ignores_the_order_of_rows_and_classes():
    images, texts, labels = random_task()
    order = np.random.default_rng(1).permutation(len(images))
    renamed = np.random.default_rng(2).permutation(len(texts))
    values = compute_measures(images, texts, labels)
    other = compute_measures(images[order], texts[renamed], np.argsort(renamed)[labels][order])
    assert other == pytest.approx(values, rel=1e-6)


def test_compute_measures_leaves_read_only_input_unchanged():
    images, texts, labels = random_task()
    copies = images.copy(), texts.copy(), labels.copy()
    for array in (images, texts, labels):
        array.setflags(write=False)
    compute_measures(images, texts, labels)
    assert all(np.array_equal(a, b) for a, b in zip(copies, (images, texts, labels), strict=True))


def test_compute_measures_gives_nan_for_undefined_measures():
    images, texts, labels = random_task(n=1, classes=1)
    values = compute_measures(images, texts, labels * 0)
    defined = {name for name, value in values.items() if np.isfinite(value)}
    assert defined == {"correct_label_alignment", "modality_gap", "transrate"}
    assert values["transrate"] == 0


def test_inter_modal_includes_the_caption_of_a_class_without_images():
    images, texts, _ = random_task(n=6, classes=3)
    labels = np.array([0, 0, 1, 1, 0, 1])
    cross = cosine_similarity(images, texts)
    wrong = np.ones_like(cross, bool)
    wrong[np.arange(6), labels] = False
    assert compute_measures(images, texts, labels)["inter_modal"] == pytest.approx(
        cross[wrong].mean()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, t, y: (x, t, np.where(y == 0, 9, y)), "label 9 is not in 0..4"),
        (lambda x, t, y: (x, t, y - 5), "is not in 0..4"),
        (lambda x, t, y: (x, t[:, :4], y), "must be matrices of one width"),
        (lambda x, t, y: (x, t, y[:-1]), "as many labels"),
        (lambda x, t, y: (x * (np.arange(40) != 7)[:, None], t, y), "row 7 is a zero vector"),
        (lambda x, t, y: (np.where(x > 2, np.nan, x), t, y), "not finite"),
    ],
)
def test_compute_measures_refuses_bad_input(change, message):
    with pytest.raises(ForetuneError, match=message):
        compute_measures(*change(*random_task()))


def test_measures_name_their_source():
    assert all(each.reference and each.function.__doc__ for each in MEASURES.values())


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def values_and_notes(images, texts, labels):
    task = measure_task(ArraySource(images, texts, labels), 0, MeasureOptions(bootstrap=16))
    notes = {name: detail["notes"] for name, detail in task["details"].items()}
    return task["measures"], notes, task


@given(st.integers(30, 80), st.integers(2, 5), st.integers(3, 8), st.integers(0, 2**32 - 1))
def test_measures_are_invariant_to_rotation(n, classes, width, seed):
    images, texts, labels = random_task(n, classes, width, seed)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]
    # These depend on the axes: diagonal GBC and EMMS by variances per dimension, spherical GBC by
    # its floor.
    fixed = {"gbc_spherical", "gbc_diagonal", "emms"}
    values = compute_measures(images, texts, labels)
    turned = compute_measures(images @ turn, texts @ turn, labels)
    # SFDA's power method starts from row sums, which a rotation changes.
    for name in values.keys() - fixed - {"sfda"}:
        assert turned[name] == pytest.approx(values[name], rel=1e-5, abs=1e-6), name


@given(st.integers(20, 60), st.integers(2, 5), st.integers(3, 8), st.integers(0, 2**32 - 1))
def test_measures_of_a_duplicated_data_set(n, classes, width, seed):
    """Means and distributions stay the same; only means over pairs of images change."""
    images, texts, labels = random_task(n, classes, width, seed)
    values = compute_measures(images, texts, labels)
    twice = compute_measures(np.tile(images, (2, 1)), texts, np.tile(labels, 2))
    for name in ("inter_modal", "correct_label_alignment", "modality_gap", "intra_texts",
                 "davies_bouldin", "h_score", "transrate", "gbc_spherical", "gbc_diagonal",
                 "sfda", "emms"):  # fmt: skip
        assert twice[name] == pytest.approx(values[name], rel=1e-8, abs=1e-10), name
    # n of the 2n (2n - 1) / 2 pairs are an image and its duplicate; the others are as before.
    pairs = n * (n - 1) / 2
    expected = (4 * pairs * values["intra_images"] + n) / (4 * pairs + n)
    assert twice["intra_images"] == pytest.approx(expected, rel=1e-9)


def test_measures_of_stored_precisions_agree():
    images, texts, labels = random_task(400, 5, 16)
    exact = compute_measures(images, texts, labels)
    for kind, bound in ((np.float32, 1e-5), (np.float16, 1e-2)):
        stored = compute_measures(images.astype(kind), texts.astype(kind), labels)
        for name, value in exact.items():
            assert stored[name] == pytest.approx(value, rel=bound, abs=bound), name


DEGENERATE = {
    "one class of several": lambda x, t, y: (x, t, y * 0),
    "one class": lambda x, t, y: (x, t[:1], y * 0),
    "one image": lambda x, t, y: (x[:1], t, y[:1]),
    "two images": lambda x, t, y: (x[:2], t, np.array([0, 1])),
    "identical images": lambda x, t, y: (np.ones_like(x), t, y),
    "identical everything": lambda x, t, y: (np.ones_like(x), np.ones_like(t), y),
    "images identical within a class": lambda x, t, y: (np.eye(8)[y], t, y),
    "an empty class": lambda x, t, y: (x, t, np.where(y == 2, 0, y)),
    "one image per class": lambda x, t, y: (x[:5], t, np.arange(5)),
    "a dimension that never varies": lambda x, t, y: (x * (np.arange(8) != 3), t, y),
    "fewer images than dimensions": lambda x, t, y: (x[:6], t, y[:6]),
}


@pytest.mark.parametrize("change", DEGENERATE.values(), ids=DEGENERATE)
@pytest.mark.filterwarnings("error")
def test_measure_task_gives_a_value_or_a_reason_for_degenerate_input(change):
    images, texts, labels = random_task()
    labels[:5] = np.arange(5)
    values, notes, task = values_and_notes(*change(images, texts, labels))
    for name, value in values.items():
        if value is None:
            assert any("undefined" in note for note in notes[name]), name
        else:
            assert np.isfinite(value), name
    json.dumps(task, allow_nan=False)


def test_measure_task_notes_too_few_images():
    images, texts, labels = random_task(n=12, classes=3, width=20)
    labels[:3] = np.arange(3)
    values, notes, task = values_and_notes(images, texts, labels)
    assert values["h_score"] == pytest.approx(2)  # K - 1, for any labels
    for name in ("h_score", "emms", "logme"):
        assert "12 images in 20 dimensions" in notes[name][0]
    assert task["notes"] == [] and notes["iimm"] == ["12 images are too few for an interval"]


def test_measure_task_notes_and_leaves_out_absent_classes():
    images, texts, labels = random_task()
    labels = np.where(labels == 2, 0, labels)
    task = measure_task(ArraySource(images, texts, labels), 0, classes=list("abcde"))
    assert task["notes"] == ["1 class has no image: c"]
    kept = np.array([0, 1, 3, 4])
    fewer = compute_measures(images, texts[kept], np.searchsorted(kept, labels))
    for name in ("transrate", "sfda", "h_score", "gbc_spherical", "gbc_diagonal", "ncti", "logme"):
        assert task["measures"][name] == pytest.approx(fewer[name], rel=1e-10), name


def test_measure_task_samples_only_for_measures_of_all_images_at_once():
    images, texts, labels = random_task(3000, 4, 6)
    whole = compute_measures(images, texts, labels)
    source, options = ArraySource(images, texts, labels), MeasureOptions(sample=500, bootstrap=0)
    task = measure_task(source, 0, options)
    for name, detail in task["details"].items():
        sampled = detail["notes"] == ["of a random sample of 500 of 3000 images"]
        assert sampled == (MEASURES[name].inputs == "matrix"), name
        if not sampled:
            assert task["measures"][name] == pytest.approx(whole[name], rel=1e-9), name
    again, other = (measure_task(source, seed, options) for seed in (0, 1))
    assert again == task and other["measures"]["ncti"] != task["measures"]["ncti"]


def test_estimate_uncertainty_interval_matches_new_images():
    """The standard error from 120 new tasks agrees with the one from halves of a task."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(4, 10)) * 0.7 + 1
    texts = rng.normal(size=(4, 10))

    def new_task(n=400):
        labels = rng.integers(0, 4, n)
        return ArraySource(rng.normal(size=(n, 10)) + centers[labels], texts, labels)

    names = ("iimm", "h_score", "silhouette_cosine", "transrate", "gbc_diagonal", "sfda", "logme")
    drawn = [
        compute_measures(t.images, t.texts, t.labels) for t in (new_task() for _ in range(120))
    ]
    widths = {name: [] for name in names}
    for _ in range(12):
        details = measure_task(new_task(), 0, MeasureOptions(bootstrap=320))["details"]
        for name in names:
            low, high = details[name]["interval"]
            widths[name].append((high - low) / 2 / 1.96)
    for name in names:
        expected = np.std([values[name] for values in drawn])
        assert np.mean(widths[name]) == pytest.approx(expected, rel=0.3), name


def test_estimate_uncertainty_curve_approaches_the_value_of_all_images():
    images, texts, labels = random_task(2000, 4, 8)
    curve = measure_task(ArraySource(images, texts, labels), 0)["details"]["iimm"]["curve"]
    assert [point["n"] for point in curve] == [31, 62, 125, 250, 500, 1000]
    deviations = [point["deviation"] for point in curve]
    # Deviations fall as those of samples without replacement do.
    assert deviations[0] / deviations[-1] == pytest.approx(np.sqrt(64 * (1 - 1 / 64)), rel=0.5)


def test_measure_registers_a_function_of_ones_own():
    @measure("mine", higher_is_better=False)
    def spread(s):
        """1 - |mean|^2."""
        return 1 - s.mean @ s.mean

    try:
        images, texts, labels = random_task()
        task = measure_task(ArraySource(images, texts, labels), 0)
    finally:
        del MEASURES["spread"]
    assert task["measures"]["spread"] == pytest.approx(1 - (unit(images).mean(0) ** 2).sum())
    assert task["details"]["spread"]["interval"] is not None
