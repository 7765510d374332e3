"""The study's figures for papers, as SVG by matplotlib, from the tables of its analysis.

The first two have the form of figures 3 and 4 of "Zero-Shot Embeddings Inform Learning and
Forgetting with Vision-Language Encoders": IIMM against gain above, against forgetting below.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy import stats

from foretune.analysis.formatting import format_number, format_plain, is_known
from foretune.analysis.outcomes import GAIN
from foretune.core.files import atomic_write
from foretune.report.charts import PALETTE
from foretune.report.page_data import ZERO_SHOT, title_tests, trade_rows

MATPLOTLIB_STYLE = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "axes.spines.top": False,
    "axes.spines.right": False, "axes.linewidth": 0.6, "lines.linewidth": 1.2,
    "axes.prop_cycle": mpl.cycler(color=PALETTE), "legend.frameon": False,
    "svg.hashsalt": "foretune",  # the same study gives the same bytes
}  # fmt: skip
OUTCOME_ROWS = {GAIN: "gain over zero-shot error", "ood_change": "change on other tasks"}
MARKS = "osD^vPX*"
MAX_NAMED_DATASETS = 24  # datasets beyond so many have no marks of their own
LINE_STYLES = ("-", "--", ":", "-.")
MAX_NUMBERED_COLUMNS = 24  # a matrix with more columns has no numbers


def save_figure(figure: Figure, path: Path) -> None:
    with atomic_write(path) as beside:
        figure.savefig(beside, format="svg", bbox_inches="tight", metadata={"Date": None})


def make_panels(rows: int, columns: int, width: float = 2.2, height: float = 1.9, **options):
    """A figure of panels, all of them as a (rows, columns) array."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def draw_nothing(why: str) -> Figure:
    figure, panels = make_panels(1, 1, width=4, height=1)
    panels[0, 0].set_axis_off()
    panels[0, 0].text(0.5, 0.5, why, ha="center", va="center")
    return figure


def assign_marks(names: list[str]) -> dict[str, dict]:
    """A colour and a mark for each name, that differ for up to 64 names."""
    if len(names) > MAX_NAMED_DATASETS:
        return {name: {"color": PALETTE[0], "marker": "o"} for name in names}
    count = len(PALETTE)
    return {
        name: {"color": PALETTE[i % count], "marker": MARKS[(i + i // count) % len(MARKS)]}
        for i, name in enumerate(names)
    }


def add_legend(figure: Figure, looks: dict[str, dict]) -> None:
    keys = [Line2D([], [], **{"ls": "", "ms": 4} | look, label=name)
            for name, look in looks.items()]  # fmt: skip
    figure.legend(handles=keys, loc="outside lower center", ncols=min(6, len(keys)))


def draw_fit(
    axes: Axes, tasks: pd.DataFrame, outcome: str, row: dict | None, looks: dict[str, dict]
) -> None:
    """IIMM against an outcome, a point a dataset; row: of statistics, for the line and its band."""
    points = tasks[["dataset", "iimm", outcome]].astype({"iimm": float, outcome: float}).dropna()
    x = points.iimm.to_numpy()
    for name, *at in points.itertuples(index=False):
        axes.scatter(*at, s=14, zorder=3, linewidths=0, **looks[name])
    if row is None or not is_known(row["slope"]) or not len(points):
        return
    ends = np.linspace(x.min(), x.max(), 50)
    middle = row["intercept"] + row["slope"] * ends
    axes.plot(ends, middle, color="0.3")
    half = np.sqrt(1 / row["n"] + (ends - row["x_mean"]) ** 2 / row["x_squares"])
    half *= stats.t.ppf(0.975, row["n"] - 2) * row["residual_sd"]
    axes.fill_between(ends, middle - half, middle + half, color="0.3", alpha=0.12, lw=0)
    said = f"R² {format_number(row['r2'])}, p {format_plain(row['p_slope'])}, n {format_plain(row['n'])}"
    axes.set_title(said, fontsize=6.5, loc="right", pad=2)


def draw_fits(tasks: pd.DataFrame, statistics: pd.DataFrame, runs: list[tuple[str, str, str]]):
    """Panels of `draw_fit`, a column for each of runs: title, model, method."""
    if "iimm" not in tasks or not runs:
        return draw_nothing("The study has nothing to draw here: no iimm, or no such runs.")
    figure, panels = make_panels(2, len(runs), sharey="row")
    looks = assign_marks(sorted(set(tasks.dataset)))
    found = statistics[statistics.measure == "iimm"].set_index(["model", "method", "outcome"])
    for column, (title, model, method) in zip(panels.T, runs, strict=True):
        own = tasks[(tasks.model == model) & (tasks.method == method)]
        for axes, (outcome, label) in zip(column, OUTCOME_ROWS.items(), strict=True):
            key = (model, method, outcome)
            row = found.loc[key].to_dict() if key in found.index else None
            draw_fit(axes, own, outcome, row, looks)
            if axes in panels[:, 0]:
                axes.set_ylabel(label)
        column[0].annotate(title, (0.5, 1.14), xycoords="axes fraction", ha="center", weight="bold")
        column[1].set_xlabel("IIMM")
    if len(looks) <= MAX_NAMED_DATASETS:
        add_legend(figure, looks)
    return figure


def get_runs_by_model(tasks: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Every model by full fine-tuning, or by its first method where it has none."""
    runs = tasks[["model", "method"]].drop_duplicates()
    full = {model: "full" if "full" in set(own.method) else own.method.iloc[0]
            for model, own in runs.groupby("model")}  # fmt: skip
    return [(name if by == "full" else f"{name}, {by}", name, by) for name, by in full.items()]


def get_runs_by_method(tasks: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Every method of the model that has the most."""
    if tasks.empty:
        return []
    counts = tasks.groupby("model").method.nunique()
    own = tasks[tasks.model == counts.idxmax()]
    return [(f"{method}, {counts.idxmax()}" if len(counts) > 1 else method, counts.idxmax(), method)
            for method in dict.fromkeys(own.method)]  # fmt: skip


def draw_matrices(outcomes: pd.DataFrame, model: str) -> Figure:
    """Accuracy, trained on x evaluated on, zero-shot in the first row; a panel for each method."""
    own = outcomes[(outcomes.model == model) & (outcomes.wise_ft.fillna(1) == 1)]
    own = own.assign(
        test=title_tests(own), trained_on=own.trained_on.fillna(ZERO_SHOT), own=own.split == "test"
    ).sort_values(["evaluated_on", "own", "split"], ascending=[True, False, True], kind="stable")
    zero = own[own.method == "zero_shot"]
    methods = [name for name in dict.fromkeys(own.method) if name != "zero_shot"]
    tests = list(dict.fromkeys(zero.test))
    if not methods:
        return draw_nothing("Nothing was fine-tuned.")
    side = 0.3 * len(tests) + 1.2
    columns = min(3, len(methods))
    figure, panels = make_panels(-(-len(methods) // columns), columns, side, side, sharey=True)
    for axes in panels.flat[len(methods) :]:
        axes.set_axis_off()
    for axes, method in zip(panels.flat, methods, strict=False):
        cells = pd.concat([zero, own[own.method == method]])
        wide = cells.pivot(index="trained_on", columns="test", values="accuracy")
        order = [name for name in (ZERO_SHOT, *tests) if name in wide.index]
        wide = wide.reindex(index=order, columns=tests)
        axes.imshow(wide, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(tests)), tests, rotation=60, ha="right")
        axes.set_yticks(range(len(order)), order)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set(title=f"{model}, {method}", xlabel="evaluated on")
        for (i, j), value in (
            np.ndenumerate(wide.to_numpy()) if len(tests) <= MAX_NUMBERED_COLUMNS else ()
        ):
            if is_known(value):
                ink = "white" if value > 0.6 else "black"
                axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", size=6, color=ink)
    for axes in panels[:, 0]:
        axes.set_ylabel("trained on")
    return figure


def draw_trade_off(tasks: pd.DataFrame, wise_ft: pd.DataFrame) -> Figure:
    """Mean gain against mean forgetting: a panel a model, a point a method, WiSE-FT's curves."""
    means = trade_rows(tasks, wise_ft)
    if means.empty:
        return draw_nothing("No method was tested on other tasks.")
    models, methods = list(dict.fromkeys(means.model)), list(dict.fromkeys(means.method))
    looks = assign_marks(methods)
    figure, panels = make_panels(1, len(models), height=2.4, sharey=True)
    for axes, model in zip(panels[0], models, strict=True):
        axes.axhline(0, color="0.7", lw=0.6)
        axes.axvline(0, color="0.7", lw=0.6)
        for method, own in means[means.model == model].groupby("method", sort=False):
            own = own.sort_values("wise_ft")
            axes.plot(own.ood_change, own.gain, color=looks[method]["color"])
            last = own[own.wise_ft == 1]
            axes.plot(last.ood_change, last.gain, ls="", ms=4, **looks[method])
        axes.set(title=model, xlabel="mean change on other tasks")
        axes.xaxis.set_major_locator(MaxNLocator(4))
    panels[0, 0].set_ylabel("mean gain over zero-shot error")
    add_legend(figure, looks)
    return figure


def draw_training(epochs: list[Path], tasks: pd.DataFrame) -> Figure:
    """Validation accuracy per epoch of the chosen trials, a line a dataset."""
    keys = ["model", "method", "dataset", "trial"]
    every = pd.concat([pd.read_parquet(path) for path in epochs]) if epochs else pd.DataFrame()
    chosen = every.merge(tasks[keys], on=keys) if len(every) else every
    if chosen.empty:
        return draw_nothing("No epochs were recorded.")
    runs = list(chosen.groupby(["model", "method"], sort=False))
    columns = min(4, len(runs))
    figure, panels = make_panels(-(-len(runs) // columns), columns, sharey=True)
    names = list(dict.fromkeys(chosen.dataset))
    looks = {
        name: {
            "color": PALETTE[i % len(PALETTE)],
            "ls": LINE_STYLES[i // len(PALETTE) % len(LINE_STYLES)],
        }
        for i, name in enumerate(names)
    }
    for axes in panels.flat[len(runs) :]:
        axes.set_axis_off()
    for axes, ((model, method), own) in zip(panels.flat, runs, strict=False):
        for name, look in looks.items():
            points = own[own.dataset == name].sort_values("epoch")
            one = {"marker": "."} if len(points) == 1 else {}  # which no line shows
            axes.plot(points.epoch, points.val_accuracy, **look, **one)
        axes.set(title=f"{model}, {method}", xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in panels[:, 0]:
        axes.set_ylabel("validation accuracy")
    add_legend(figure, looks)
    return figure


def draw_figures(analysis: Path, epochs: list[Path], models: list[str], output: Path) -> None:
    """Write the figures into the folder `output`.

    models.svg and methods.svg have the form of the paper's figures 3 and 4; accuracy_{model}.svg,
    trade_off_chart.svg and training.svg are the report's, for paper. analysis: the folder of the
    study's tables; epochs: its trials' files.
    """
    tables = {
        name: pd.read_parquet(Path(analysis) / f"{name}.parquet")
        for name in ("tasks", "statistics", "outcomes", "wise_ft")
    }
    tasks, statistics = tables["tasks"], tables["statistics"]
    # Names are data: a dollar sign begins no formula.
    with mpl.rc_context(MATPLOTLIB_STYLE | {"text.parse_math": False}):
        save_figure(draw_fits(tasks, statistics, get_runs_by_model(tasks)), output / "models.svg")
        save_figure(draw_fits(tasks, statistics, get_runs_by_method(tasks)), output / "methods.svg")
        save_figure(draw_trade_off(tasks, tables["wise_ft"]), output / "trade_off.svg")
        save_figure(draw_training(epochs, tasks), output / "training.svg")
        for model in models:
            save_figure(draw_matrices(tables["outcomes"], model), output / f"accuracy_{model}.svg")
