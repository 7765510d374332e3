"""Base-to-new generalization: models tuned on half of a dataset's classes, tested on the others."""

import pandas as pd

from foretune.analysis.seeds import average_seeds

KEY = ["model", "method", "wise_ft", "dataset"]
ACCURACIES = ["base", "new", "harmonic_mean"]
BASE_TO_NEW_COLUMNS = [*KEY, *ACCURACIES, *(f"zero_shot_{name}" for name in ACCURACIES)]


def tabulate_base_to_new(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracies on base and new classes of the models tuned on the base classes.

    Args:
        outcomes: see `study_tables.join_outcomes`. The halves of the dataset `d` are called
            `d_base` and `d_new`; see `core.class_halves`.

    Returns:
        One row per model, method without seed, wise_ft and dataset: the accuracies and their
        harmonic mean (Zhou et al. 2022, arXiv:2203.05557, section 4.1), and those of the zero-shot
        model. Methods that have no classifier for new classes have no row.
    """
    rows = outcomes[(outcomes.split == "test") & outcomes.trained_on.notna()]
    # Without any row, the column has no texts.
    rows = rows.astype({"trained_on": str, "evaluated_on": str})
    rows = rows[rows.trained_on.str.endswith("_base")]
    rows = rows.assign(dataset=rows.trained_on.str.removesuffix("_base"))
    halves = {}
    for half in ("base", "new"):
        tested = rows[rows.evaluated_on == rows.dataset + f"_{half}"]
        tested = average_seeds(tested[[*KEY, "accuracy", "zero_shot_accuracy"]])
        names = {"accuracy": half, "zero_shot_accuracy": f"zero_shot_{half}"}
        halves[half] = tested.rename(columns=names)
    table = halves["base"].merge(halves["new"], on=KEY)
    for model in ("", "zero_shot_"):
        base, new = table[f"{model}base"], table[f"{model}new"]
        table[f"{model}harmonic_mean"] = 2 * base * new / (base + new)
    return table[BASE_TO_NEW_COLUMNS].sort_values(KEY, ignore_index=True)
