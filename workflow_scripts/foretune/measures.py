"""Measures of a task from its zero-shot embeddings, in closed form and float64.

All are pure functions of images X (N, d) and texts T (C, d), rows of unit length, and labels
y (N,) in 0..C-1. Those here need no more than the classes' counts and sums and the sum of
squared norms, so they cost O(N d). Add one by writing a function of `ClassSums` under
`@measure`; it appears in every table and plot.

Source: "Zero-Shot Embeddings Inform Learning and Forgetting with Vision-Language Encoders",
section 3 and appendix A.1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from foretune.embeddings import unit_rows
from foretune.files import ForetuneError


@dataclass(frozen=True)
class ClassSums:
    """counts (C,), sums (C, d) of each class's images, squares = sum of |x|^2, texts (C, d)."""

    counts: np.ndarray
    sums: np.ndarray
    squares: float
    texts: np.ndarray

    @property
    def n(self) -> int:
        return int(self.counts.sum())


def class_sums(images: np.ndarray, texts: np.ndarray, labels: np.ndarray) -> ClassSums:
    """Validate the input, scale rows to unit length, and sum by class.

    Raises ForetuneError for unequal lengths or widths, a label outside 0..C-1, a zero vector
    or a value that is not finite.
    """
    labels = np.asarray(labels)
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:
        raise ForetuneError(f"images {images.shape} and texts {texts.shape} are not of one width")
    if labels.shape != (len(images),) or len(images) == 0:
        raise ForetuneError(f"{len(images)} images need as many labels, not {labels.shape}")
    if labels.min() < 0 or labels.max() >= len(texts):
        row = int(np.flatnonzero((labels < 0) | (labels >= len(texts)))[0])
        raise ForetuneError(f"row {row}: label {labels[row]} is not in 0..{len(texts) - 1}")
    images, texts = unit_rows(images), unit_rows(texts)
    if not (np.isfinite(images).all() and np.isfinite(texts).all()):
        raise ForetuneError("an embedding has a value that is not finite")
    sums = np.zeros_like(texts)
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    sums[present] = np.add.reduceat(images[order], starts, axis=0)
    counts = np.bincount(labels, minlength=len(texts))
    return ClassSums(counts, sums, float(np.einsum("nd,nd->", images, images)), texts)


@dataclass(frozen=True)
class Measure:
    """A registered measure and where it comes from."""

    name: str
    function: Callable[[ClassSums], float]
    reference: str


MEASURES: dict[str, Measure] = {}


def measure(reference: str):
    def register(function):
        MEASURES[function.__name__] = Measure(function.__name__, function, reference)
        return function

    return register


@measure("Incorrect Label Alignment, appendix A.1.1")
def inter_modal(s: ClassSums) -> float:
    """Mean over images i of the mean over classes c != y_i of x_i . t_c; NaN for one class."""
    classes = len(s.texts)
    if classes < 2:
        return np.nan
    every = s.sums.sum(0) @ s.texts.sum(0)
    correct = np.einsum("cd,cd->", s.sums, s.texts)
    return float((every - correct) / (s.n * (classes - 1)))


@measure("Intra-Images, appendix A.2")
def intra_images(s: ClassSums) -> float:
    """Mean of x_i . x_j over all pairs i < j; NaN for one image."""
    if s.n < 2:
        return np.nan
    total = s.sums.sum(0)
    return float((total @ total - s.squares) / (s.n * (s.n - 1)))


@measure("IIMM, the Inter-Intra Modal Measure, section 3")
def iimm(s: ClassSums) -> float:
    """(inter_modal + intra_images) / 2."""
    return (inter_modal(s) + intra_images(s)) / 2


@measure("Correct Label Alignment, appendix A.1.1 (ACS in the second paper)")
def correct_label_alignment(s: ClassSums) -> float:
    """Mean of x_i . t_{y_i}."""
    return float(np.einsum("cd,cd->", s.sums, s.texts) / s.n)


@measure("Modality gap, Liang et al. 2022")
def modality_gap(s: ClassSums) -> float:
    """Distance between the mean image and the mean text embedding."""
    return float(np.linalg.norm(s.sums.sum(0) / s.n - s.texts.mean(0)))


def compute_measures(images: np.ndarray, texts: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Every registered measure of one task; see the module's docstring for the input."""
    statistics = class_sums(images, texts, labels)
    return {name: registered.function(statistics) for name, registered in MEASURES.items()}
