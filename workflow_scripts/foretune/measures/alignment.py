"""IIMM, its terms and other mean similarities, computed from class sums alone.

Source: "Zero-Shot Embeddings Inform Learning and Forgetting with Vision-Language Encoders",
section 3 and appendix A.1.
"""

import numpy as np

from foretune.measures.class_statistics import ClassStatistics
from foretune.measures.registry import UndefinedMeasure, measure


@measure("Incorrect Label Alignment, appendix A.1.1", higher_is_better=True)
def inter_modal(s: ClassStatistics) -> float:
    """Mean over images i of the mean over classes c != y_i of x_i . t_c; needs two classes."""
    classes = len(s.texts)
    if classes < 2:
        raise UndefinedMeasure("one class has no incorrect label")
    all_labels = s.total @ s.text_total
    correct = np.einsum("cd,cd->", s.class_sums, s.texts)
    return (all_labels - correct) / (s.n * (classes - 1))


@measure("Intra-Images, appendix A.2", higher_is_better=True)
def intra_images(s: ClassStatistics) -> float:
    """Mean of x_i . x_j over all pairs i < j; needs two images.

    The sum over all pairs follows from |sum of x|^2 = N + 2 * (sum over pairs of x_i . x_j).
    """
    if s.n < 2:
        raise UndefinedMeasure("one image has no pair")
    return (s.total @ s.total - s.n) / (s.n * (s.n - 1))


@measure("IIMM, the Inter-Intra Modal Measure, section 3", higher_is_better=True)
def iimm(s: ClassStatistics) -> float:
    """(inter_modal + intra_images) / 2."""
    return (inter_modal(s) + intra_images(s)) / 2


@measure("Correct Label Alignment, appendix A.1.1 (ACS in the second paper)")
def correct_label_alignment(s: ClassStatistics) -> float:
    """Mean of x_i . t_{y_i}."""
    return np.einsum("cd,cd->", s.class_sums, s.texts) / s.n


@measure("Intra-Texts, table 3")
def intra_texts(s: ClassStatistics) -> float:
    """Mean of t_a . t_b over all pairs a < b; needs two classes."""
    classes = len(s.texts)
    if classes < 2:
        raise UndefinedMeasure("one text has no pair")
    return (s.text_total @ s.text_total - classes) / (classes * (classes - 1))


@measure("Modality gap, Liang et al. 2022")
def modality_gap(s: ClassStatistics) -> float:
    """Euclidean distance between the mean image and the mean text embedding."""
    return float(np.linalg.norm(s.mean - s.text_total / len(s.texts)))
