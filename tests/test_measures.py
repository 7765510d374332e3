import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity, euclidean_distances

from foretune.files import ForetuneError
from foretune.measures import MEASURES, compute_measures


def random_task(n=40, classes=5, width=8, seed=0):
    rng = np.random.default_rng(seed)
    images, texts = rng.normal(size=(n, width)), rng.normal(size=(classes, width))
    return images, texts, rng.integers(0, classes, n)


def test_by_hand():
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
def test_equal_to_all_pairs_by_scikit_learn(n, classes, width, seed):
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


def test_order_of_rows_and_names_of_classes_do_not_matter():
    images, texts, labels = random_task()
    order = np.random.default_rng(1).permutation(len(images))
    renamed = np.random.default_rng(2).permutation(len(texts))
    values = compute_measures(images, texts, labels)
    other = compute_measures(images[order], texts[renamed], np.argsort(renamed)[labels][order])
    assert other == pytest.approx(values, rel=1e-6)


def test_input_is_not_changed_and_may_be_read_only():
    images, texts, labels = random_task()
    copies = images.copy(), texts.copy(), labels.copy()
    for array in (images, texts, labels):
        array.setflags(write=False)
    compute_measures(images, texts, labels)
    assert all(np.array_equal(a, b) for a, b in zip(copies, (images, texts, labels), strict=True))


def test_undefined_is_nan():
    images, texts, labels = random_task(n=1, classes=1)
    values = compute_measures(images, texts, labels * 0)
    defined = {name for name, value in values.items() if np.isfinite(value)}
    assert defined == {"correct_label_alignment", "modality_gap", "transrate"}
    assert values["transrate"] == 0


def test_a_class_without_images_keeps_its_caption():
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
        (lambda x, t, y: (x, t[:, :4], y), "not of one width"),
        (lambda x, t, y: (x, t, y[:-1]), "as many labels"),
        (lambda x, t, y: (x * (np.arange(40) != 7)[:, None], t, y), "row 7 is a zero vector"),
        (lambda x, t, y: (np.where(x > 2, np.nan, x), t, y), "not finite"),
    ],
)
def test_bad_input_is_refused(change, message):
    with pytest.raises(ForetuneError, match=message):
        compute_measures(*change(*random_task()))


def test_every_measure_names_its_source():
    assert all(m.reference and m.function.__doc__ for m in MEASURES.values())
