"""Every measure equals its authors' public definition, or scikit-learn's, on the same input.

Bounds are 1e-10 for sums and 1e-9 where a matrix is inverted or decomposed. Rounding differs by
processor and stays orders of magnitude below; another definition differs by far more.
"""

import numpy as np
import pytest
from sklearn import metrics

import public_definitions as public
from foretune.encoders.streams import ArraySource
from foretune.measures.compute import MEASURES
from foretune.measures.task import Task, compute_measure


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def draw(n, width, classes, seed):
    """Return a cone of unit vectors with class structure, where every class is present."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    centers = 0.4 * rng.normal(size=(classes, width)) + rng.normal(size=width)
    images = unit(rng.normal(size=(n, width)) + centers[labels])
    texts = unit(rng.normal(size=(classes, width)) - 0.3)
    return images, texts, labels, tuple(rng.normal(size=(3, classes, 24)))


CASES = [draw(600, 16, 5, 0), draw(900, 96, 12, 1), draw(1200, 128, 40, 2), draw(500, 70, 2, 3)]


@pytest.fixture(scope="module", params=range(len(CASES)), ids=["16d", "96d", "128d", "2 classes"])
def case(request):
    images, texts, labels, label_embeddings = CASES[request.param]
    task = Task(ArraySource(images, texts, labels), label_embeddings=label_embeddings)
    return (
        images,
        texts,
        labels,
        label_embeddings,
        lambda name: compute_measure(MEASURES[name], task),
    )


def test_iimm_equals_its_definition(case):
    images, texts, labels, _, value = case
    assert value("iimm").value == pytest.approx(public.iimm(images, texts, labels), rel=1e-10)


@pytest.mark.parametrize("name", ["transrate", "h_score", "sfda", "logme"])
def test_transfer_scores_equal_the_public_code(case, name):
    images, _, labels, _, value = case
    expected = getattr(public, name)(images, labels)
    assert value(name).value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["spherical", "diagonal"])
def test_gbc_equals_the_public_code_and_the_corrected_form(case, kind):
    images, _, labels, _, value = case
    result = value(f"gbc_{kind}")
    assert -np.exp(-result.value) == pytest.approx(public.gbc(images, labels, kind), rel=1e-9)
    # No class has a variance near the floor of the corrected form.
    corrected = public.gbc(images, labels, kind, floor=0, times_d=kind == "spherical")
    assert -np.exp(-result.variants["corrected"]) == pytest.approx(corrected, rel=1e-9)


def test_emms_equals_the_public_code(case):
    images, _, labels, label_embeddings, value = case
    result, expected = value("emms"), public.emms(images, labels, label_embeddings)
    assert result.value == pytest.approx(expected, rel=1e-9)
    assert result.variants["per_element"] == pytest.approx(expected / 24**2, rel=1e-9)


def test_ncti_equals_the_public_code(case):
    images, _, labels, _, value = case
    result = value("ncti")
    seli, ncc, vc = public.ncti(images, labels, min(64, images.shape[1]), "full")
    assert result.variants == pytest.approx({"seli": seli, "ncc": ncc, "vc": vc}, rel=1e-9)
    assert result.value == pytest.approx(ncc + seli - vc, rel=1e-9)


def test_transrate_variant_is_weighted_by_share(case):
    images, _, labels, _, value = case
    z = images - images.mean(0)
    counts = np.bincount(labels)
    rates = [public.coding_rate(z[labels == c]) for c in range(len(counts))]
    expected = public.coding_rate(z) - counts @ rates / len(z)
    assert value("transrate").variants["weighted"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "reference", "bound"),
    [
        ("silhouette_cosine", lambda x, y: metrics.silhouette_score(x, y, metric="cosine"), 1e-10),
        ("silhouette_euclidean", metrics.silhouette_score, 1e-6),
        ("davies_bouldin", metrics.davies_bouldin_score, 1e-10),
        ("calinski_harabasz", metrics.calinski_harabasz_score, 1e-10),
    ],
)
def test_clustering_scores_equal_scikit_learn(case, name, reference, bound):
    images, texts, _, _, value = case
    points = np.concatenate([images, texts])
    cluster = np.repeat([0, 1], [len(images), len(texts)])
    assert value(name).value == pytest.approx(reference(points, cluster), rel=bound)


def test_entropies_equal_a_kernel_density_estimate():
    images, texts, labels, _ = draw(300, 8, 6, 5)
    task = Task(ArraySource(images, texts, labels))
    separate = [public.density_entropy(points) for points in (images, texts)]
    total = compute_measure(MEASURES["entropy_total"], task).value
    assert total == pytest.approx((300 * separate[0] + 6 * separate[1]) / 306, rel=1e-9)
    together = public.density_entropy(np.concatenate([images, texts]))
    assert compute_measure(MEASURES["entropy_single"], task).value == pytest.approx(
        together, rel=1e-9
    )
