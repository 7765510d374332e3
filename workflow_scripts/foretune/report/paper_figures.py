"""Draw the study's figures for papers, as SVG with matplotlib, from the tables of its analysis.

models.svg and methods.svg have the form of figures 3 and 4 of "Zero-Shot Embeddings Inform
Learning and Forgetting with Vision-Language Encoders": IIMM against gain in the upper row,
against forgetting in the lower row.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from foretune.analysis.formatting import format_number, format_plain, is_known
from foretune.analysis.outcomes import GAIN
from foretune.analysis.seeds import average_seeds
from foretune.core.parquet import read_frame
from foretune.report.charts import PALETTE
from foretune.report.figure_panels import (
    MATPLOTLIB_STYLE,
    MAX_NAMED_DATASETS,
    Styles,
    add_legend,
    assign_markers,
    draw_message,
    make_panels,
    save_figure,
)
from foretune.report.page_data import (
    ZERO_SHOT,
    read_epochs,
    title_tests,
)

OUTCOME_ROWS = {GAIN: "gain over zero-shot error", "ood_change": "change on other tasks"}
LINE_STYLES = ("-", "--", ":", "-.")
MAX_NUMBERED_COLUMNS = 24  # a matrix with more columns has no numbers in its cells

FigureRuns = list[tuple[str, str, str]]  # title of a column of panels, model, method


def draw_fit(
    axes: Axes, tasks: pd.DataFrame, outcome: str, fit: dict | None, styles: Styles
) -> None:
    """Draw IIMM against an outcome: a point per dataset, the fitted line and its 95% band.

    fit: row of the table `statistics`; without it only the points are drawn.
    """
    points = tasks[["dataset", "iimm", outcome]].astype({"iimm": float, outcome: float}).dropna()
    # One call per marker: axes that share a scale are slow to add points to.
    markers = points.dataset.map(lambda name: styles[name]["marker"])
    for marker, group in points.groupby(markers, sort=False):
        colors = [styles[name]["color"] for name in group.dataset]
        axes.scatter(
            group.iimm, group[outcome], c=colors, marker=marker, s=14, zorder=3, linewidths=0
        )
    if fit is None or not is_known(fit["slope"]) or not len(points):
        return
    iimm = points.iimm.to_numpy()
    grid = np.linspace(iimm.min(), iimm.max(), 50)
    mean = fit["intercept"] + fit["slope"] * grid
    axes.plot(grid, mean, color="0.3")
    # Confidence band of a regression line's mean.
    half_width = np.sqrt(1 / fit["n"] + (grid - fit["x_mean"]) ** 2 / fit["x_squares"])
    half_width *= stats.t.ppf(0.975, fit["n"] - 2) * fit["residual_sd"]
    axes.fill_between(grid, mean - half_width, mean + half_width, color="0.3", alpha=0.12, lw=0)
    r2, p, n = format_number(fit["r2"]), format_plain(fit["p_slope"]), format_plain(fit["n"])
    axes.set_title(f"R² {r2}, p {p}, n {n}", fontsize=6.5, loc="right", pad=2)


def draw_fits(tasks: pd.DataFrame, statistics: pd.DataFrame, runs: FigureRuns) -> Figure:
    """Return a figure with a column of panels per run, gain above and forgetting below."""
    if "iimm" not in tasks or not runs:
        return draw_message("Nothing to draw: the study lacks iimm or fine-tuned models.")
    figure, panels = make_panels(2, len(runs), sharey="row")
    styles = assign_markers(sorted(set(tasks.dataset)))
    fits = statistics[statistics.measure == "iimm"].set_index(["model", "method", "outcome"])
    for column, (title, model, method) in zip(panels.T, runs, strict=True):
        run_tasks = tasks[(tasks.model == model) & (tasks.method == method)]
        for axes, (outcome, label) in zip(column, OUTCOME_ROWS.items(), strict=True):
            key = (model, method, outcome)
            fit = fits.loc[key].to_dict() if key in fits.index else None
            draw_fit(axes, run_tasks, outcome, fit, styles)
            if axes in panels[:, 0]:
                axes.set_ylabel(label)
        column[0].annotate(title, (0.5, 1.14), xycoords="axes fraction", ha="center", weight="bold")
        column[1].set_xlabel("IIMM")
    if len(styles) <= MAX_NAMED_DATASETS:
        add_legend(figure, styles)
    return figure


def get_runs_by_model(tasks: pd.DataFrame) -> FigureRuns:
    """Return every model with full fine-tuning, or with its first method if it has none."""
    runs = tasks[["model", "method"]].drop_duplicates()
    methods = {
        model: "full" if "full" in set(group.method) else group.method.iloc[0]
        for model, group in runs.groupby("model")
    }
    return [(model if method == "full" else f"{model}, {method}", model, method)
            for model, method in methods.items()]  # fmt: skip


def get_runs_by_method(tasks: pd.DataFrame) -> FigureRuns:
    """Return every method of the model that has the most methods."""
    if tasks.empty:
        return []
    counts = tasks.groupby("model").method.nunique()
    model = counts.idxmax()
    return [(f"{method}, {model}" if len(counts) > 1 else method, model, method)
            for method in dict.fromkeys(tasks.method[tasks.model == model])]  # fmt: skip


def draw_matrices(outcomes: pd.DataFrame, model: str) -> Figure:
    """Return a model's matrices of accuracy, trained on x evaluated on, a panel per method.

    The first row of a matrix is the zero-shot model.
    """
    rows = outcomes[(outcomes.model == model) & (outcomes.wise_ft.fillna(1) == 1)]
    rows = rows.assign(
        test=title_tests(rows), trained_on=rows.trained_on.fillna(ZERO_SHOT),
        is_own_test=rows.split == "test",
    ).sort_values(
        ["evaluated_on", "is_own_test", "split"], ascending=[True, False, True], kind="stable"
    )  # fmt: skip
    zero_shot = rows[rows.method == "zero_shot"]
    methods = [name for name in dict.fromkeys(rows.method) if name != "zero_shot"]
    tests = list(dict.fromkeys(zero_shot.test))
    if not methods:
        return draw_message("Nothing was fine-tuned.")
    side = 0.3 * len(tests) + 1.2
    columns = min(3, len(methods))
    figure, panels = make_panels(-(-len(methods) // columns), columns, side, side, sharey=True)
    for axes in panels.flat[len(methods) :]:
        axes.set_axis_off()
    for axes, method in zip(panels.flat, methods, strict=False):
        cells = pd.concat([zero_shot, rows[rows.method == method]])
        matrix = cells.pivot(index="trained_on", columns="test", values="accuracy")
        order = [name for name in (ZERO_SHOT, *tests) if name in matrix.index]
        draw_matrix(axes, matrix.reindex(index=order, columns=tests))
        axes.set(title=f"{model}, {method}", xlabel="evaluated on")
    for axes in panels[:, 0]:
        axes.set_ylabel("trained on")
    return figure


def draw_matrix(axes: Axes, matrix: pd.DataFrame) -> None:
    """Draw accuracies as coloured cells, with their numbers in % if there are few columns."""
    axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(matrix.columns)), matrix.columns, rotation=60, ha="right")
    axes.set_yticks(range(len(matrix.index)), matrix.index)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if len(matrix.columns) > MAX_NUMBERED_COLUMNS:
        return
    for (i, j), value in np.ndenumerate(matrix.to_numpy()):
        if is_known(value):
            color = "white" if value > 0.6 else "black"
            axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", size=6, color=color)


def draw_trade_off(front: pd.DataFrame) -> Figure:
    """Return mean gain against mean forgetting, a panel per model and a point per method.

    Curves go through WiSE-FT's weights, crosses are 95% intervals of fine-tuned models, and the
    dashed line is the front. front: see `front.compute_front`.
    """
    if front.empty:
        return draw_message("No method was tested on other tasks.")
    models = list(dict.fromkeys(front.model))
    methods = [name for name in dict.fromkeys(front.method) if name != "zero_shot"]
    styles = assign_markers(methods)
    figure, panels = make_panels(1, len(models), height=2.4, sharey=True)
    for axes, model in zip(panels[0], models, strict=True):
        axes.axhline(0, color="0.7", lw=0.6)
        axes.axvline(0, color="0.7", lw=0.6)
        points = front[front.model == model]
        edge = points[points.on_front].sort_values("ood_change")
        axes.step(edge.ood_change, edge[GAIN], where="pre", color="0.5", ls="--", lw=0.8)
        for method in methods:
            curve = points[points.method == method]
            if len(curve) > 1:
                curve = pd.concat([points[points.method == "zero_shot"], curve])
            axes.plot(curve.ood_change, curve[GAIN], color=styles[method]["color"])
            end = curve[curve.wise_ft == 1]
            x_error, y_error = (
                np.abs(end[[f"{name}_low", f"{name}_high"]].to_numpy().T - end[name].to_numpy())
                for name in ("ood_change", GAIN)
            )
            axes.errorbar(end.ood_change, end[GAIN], y_error, x_error, ls="", ms=4,
                          elinewidth=0.5, **styles[method])  # fmt: skip
        axes.set(title=model, xlabel="mean change on other tasks")
        axes.xaxis.set_major_locator(MaxNLocator(4))
    panels[0, 0].set_ylabel("mean gain over zero-shot error")
    add_legend(figure, styles)
    return figure


def read_selected_epochs(epochs: list[Path], tasks: pd.DataFrame) -> pd.DataFrame:
    """Return the epochs of the selected trials; those of `tasks`."""
    keys = ["model", "method", "dataset", "trial"]
    frames = [frame.merge(tasks[keys], on=keys) for frame in read_epochs(epochs)]
    return pd.concat(frames) if frames else pd.DataFrame(columns=keys)


def draw_training(selected: pd.DataFrame, model: str) -> Figure:
    """Return a model's validation accuracy by epoch, a panel per method and a line per dataset.

    selected: see `read_selected_epochs`.
    """
    selected = selected[selected.model == model]
    if selected.empty:
        return draw_message("No epochs were recorded.")
    runs = list(selected.groupby("method", sort=False))
    columns = min(4, len(runs))
    figure, panels = make_panels(-(-len(runs) // columns), columns, sharey=True)
    styles = {
        name: {
            "color": PALETTE[i % len(PALETTE)],
            "ls": LINE_STYLES[i // len(PALETTE) % len(LINE_STYLES)],
        }
        for i, name in enumerate(dict.fromkeys(selected.dataset))
    }
    for axes in panels.flat[len(runs) :]:
        axes.set_axis_off()
    for axes, (method, run_epochs) in zip(panels.flat, runs, strict=False):
        for name, style in styles.items():
            points = run_epochs[run_epochs.dataset == name].sort_values("epoch")
            marker = {"marker": "."} if len(points) == 1 else {}  # a line needs two points
            axes.plot(points.epoch, points.val_accuracy, **style, **marker)
        axes.set(title=f"{model}, {method}", xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in panels[:, 0]:
        axes.set_ylabel("validation accuracy")
    add_legend(figure, styles)
    return figure


def draw_figures(analysis: Path, epochs: list[Path], models: list[str], output: Path) -> None:
    """Write the figures into the folder `output`.

    The files are models.svg, methods.svg, trade_off.svg and, for each model, accuracy_{model}.svg
    and training_{model}.svg.

    Args:
        analysis: Folder with the tables of the analysis.
        epochs: Parquet files with the epochs of all trials.
        models: Names of the models whose accuracies and training are drawn.
        output: Folder to write to.
    """
    tables = {
        name: read_frame(Path(analysis) / f"{name}.parquet")
        for name in ("tasks", "statistics", "outcomes", "front")
    }
    tasks, statistics = tables["tasks"], tables["statistics"]
    outcomes = average_seeds(tables["outcomes"])
    # A name may contain a dollar sign, which must not start a formula.
    with mpl.rc_context(MATPLOTLIB_STYLE | {"text.parse_math": False}):
        save_figure(draw_fits(tasks, statistics, get_runs_by_model(tasks)), output / "models.svg")
        save_figure(draw_fits(tasks, statistics, get_runs_by_method(tasks)), output / "methods.svg")
        save_figure(draw_trade_off(tables["front"]), output / "trade_off.svg")
        selected = read_selected_epochs(epochs, tasks)
        for model in models:
            save_figure(draw_training(selected, model), output / f"training_{model}.svg")
            save_figure(draw_matrices(outcomes, model), output / f"accuracy_{model}.svg")
