"""Class statistics: exact, additive, hardly affected by precision, and clear about bad input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.core.errors import ForetuneError
from foretune.encoders.streams import ArraySource
from foretune.measures.accumulate import (
    accumulate_statistics,
    choose_shard_count,
)
from foretune.measures.class_statistics import ALL, SCATTER, SUMS, VARIANCES, ClassStatistics


def draw(n=300, width=12, classes=4, seed=0, offset=3.0):
    """Return rows far from the origin, where a scatter about 0 would cancel."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(n, width)) + offset
    return images, rng.normal(size=(classes, width)), rng.integers(0, classes, n)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def assert_same(one: ClassStatistics, other: ClassStatistics, tolerance: float) -> None:
    assert np.array_equal(one.counts, other.counts)
    for name in ("class_sums", "class_variances", "scatter", "mean"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=tolerance)


def test_accumulate_statistics_equals_numpy():
    images, texts, labels = draw()
    whole = accumulate_statistics(ArraySource(images, texts, labels))[0].whole
    rows = unit(images)
    assert np.array_equal(whole.counts, np.bincount(labels))
    for c in range(4):
        assert whole.class_sums[c] == pytest.approx(rows[labels == c].sum(0), rel=1e-12)
        assert whole.class_variances[c] == pytest.approx(rows[labels == c].var(0), rel=1e-11)
    centred = rows - rows.mean(0)
    assert whole.scatter == pytest.approx(centred.T @ centred, rel=1e-11, abs=1e-13)
    assert whole.variance == pytest.approx(rows.var(0).mean(), rel=1e-11)


def test_accumulate_statistics_leaves_out_what_the_extent_excludes():
    source = ArraySource(*draw())
    sums, variances, scatter, full = (
        accumulate_statistics(source, extent)[0].whole for extent in (SUMS, VARIANCES, SCATTER, ALL)
    )
    assert sums.squares is sums.moment is variances.moment is scatter.squares is None
    for statistics in (sums, variances, scatter):
        assert statistics.class_sums == pytest.approx(full.class_sums, rel=1e-12)
    assert variances.class_variances == pytest.approx(full.class_variances, rel=1e-11)
    assert scatter.scatter == pytest.approx(full.scatter, rel=1e-11, abs=1e-12)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_class_statistics_of_parts_add_up_to_the_whole(first, second, seed):
    """The two parts are accumulated separately, so each has its own shift."""
    images, texts, labels = draw(first + second, 5, 3, seed)
    whole = accumulate_statistics(ArraySource(images, texts, labels))[0].whole
    parts = [
        accumulate_statistics(ArraySource(images[rows], texts, labels[rows]))[0].whole
        for rows in (slice(first), slice(first, None))
    ]
    assert_same(parts[0] + parts[1], whole, 1e-12)
    assert_same(parts[1] + parts[0], whole, 1e-12)


@pytest.mark.parametrize("shards", [1, 8, 64])
def test_accumulate_statistics_makes_shards_of_equal_size(shards):
    images, texts, labels = draw(20_000, 6)  # more than a block
    sharded, kept, kept_labels = accumulate_statistics(
        ArraySource(images, texts, labels), shards=shards, keep=np.array([0, 5, 9000, 19_999])
    )
    assert_same(
        sharded.whole, accumulate_statistics(ArraySource(images, texts, labels))[0].whole, 1e-9
    )
    sizes = sharded.counts.sum(1)
    assert len(sharded) == shards and np.ptp(sizes) <= 3  # at most one per block
    all_shards = next(sharded.subsets(np.ones((1, shards)), ALL))
    assert_same(all_shards, sharded.whole, 1e-9)
    assert kept == pytest.approx(unit(images)[[0, 5, 9000, 19_999]], rel=1e-13)
    assert np.array_equal(kept_labels, labels[[0, 5, 9000, 19_999]])


def test_shard_statistics_subset_is_the_sum_of_its_shards():
    sharded = accumulate_statistics(ArraySource(*draw(64)), shards=8)[0]
    weights = np.array([[1, 0, 0, 1, 0, 1, 0, 0], [0, 1, 1, 1, 1, 1, 1, 1.0]])
    for row, subset in zip(weights > 0, sharded.subsets(weights, ALL), strict=True):
        assert subset.n == sharded.counts[row].sum()
        assert subset.moment == pytest.approx(sharded.moment[row].sum(0), rel=1e-12)
        assert subset.sums == pytest.approx(sharded.sums[row].sum(0), rel=1e-12)


@pytest.mark.parametrize(("kind", "bound"), [(np.float32, 1e-7), (np.float16, 1e-3)])
def test_accumulate_statistics_of_stored_precisions_agree(kind, bound):
    """Only the rounding of the stored values differs: by 2^-24 and 2^-11 per value."""
    images, texts, labels = draw(2000, 64)
    exact = accumulate_statistics(ArraySource(images, texts, labels))[0].whole
    stored = accumulate_statistics(ArraySource(images.astype(kind), texts, labels))[0].whole
    assert np.abs(stored.mean - exact.mean).max() < bound * np.abs(exact.mean).max()
    assert np.linalg.norm(stored.scatter - exact.scatter) < bound * np.linalg.norm(exact.scatter)
    # The products in float32 add far less error to a float16 cache than its own rounding: about
    # 2^-24 sqrt(1024) = 2e-6 for the 1024 rows that are summed at once, in whatever order.
    rounded = images.astype(kind).astype(np.float64)
    again = accumulate_statistics(ArraySource(rounded, texts, labels))[0].whole
    assert np.abs(stored.scatter - again.scatter).max() < 1e-5 * np.abs(again.scatter).max()


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("extent", [SUMS, VARIANCES, SCATTER, ALL])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_accumulate_statistics_names_a_bad_row_after_the_first_block(kind, extent, bad):
    images, texts, labels = draw(9000, 4)
    images = images.astype(kind)
    images[8765, 2] = bad
    with pytest.raises(ForetuneError, match="row 8765 has a value that is not finite"):
        accumulate_statistics(ArraySource(images, texts, labels), extent)
    images[8765] = 0
    with pytest.raises(ForetuneError, match="row 8765 is a zero vector"):
        accumulate_statistics(ArraySource(images, texts, labels), extent)
    labels[8700] = -1
    with pytest.raises(ForetuneError, match=r"row 8700: label -1 is not in 0\.\.3"):
        accumulate_statistics(ArraySource(images, texts, labels), extent)


def test_accumulate_statistics_names_bad_texts_and_labels():
    images, texts, labels = draw()
    with pytest.raises(ForetuneError, match="texts: row 2 is a zero vector"):
        accumulate_statistics(ArraySource(images, texts * (np.arange(4) != 2)[:, None], labels))
    with pytest.raises(ForetuneError, match="labels must be whole numbers"):
        ArraySource(images, texts, labels.astype(float))


def test_choose_shard_count_is_bounded_by_images_and_memory():
    assert choose_shard_count(10**6, 10, 128, ALL) == 64
    assert choose_shard_count(100, 10, 128, ALL) == 16
    assert choose_shard_count(3, 10, 128, ALL) == 1
    assert choose_shard_count(10**6, 1000, 1024, ALL) == 8
    assert choose_shard_count(10**6, 22_000, 1024, ALL) == 1
