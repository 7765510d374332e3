"""Write a fine-tuned model of a study as a folder that open_clip loads, with a model card."""

import shutil
from pathlib import Path

from foretune.core import cli
from foretune.core.caption_templates import format_caption
from foretune.core.config import check_config, trains_on_embeddings
from foretune.core.entries import Selection
from foretune.core.errors import ForetuneError
from foretune.core.files import read_json
from foretune.core.schema_errors import suggest_name
from foretune.core.study_file import read_study
from foretune.core.variants import get_base_method

EVALUATIONS = Path("results/evaluations")


def find_selection(study: dict, model: str, method: str, dataset: str) -> Selection:
    """Return the selected trial of a pair of the study.

    Raises:
        ForetuneError: the study has no such pair, or it is not trained or diverged.
    """
    names = {"MODEL": (model, "models"), "METHOD": (method, "methods"),
             "DATASET": (dataset, "datasets")}  # fmt: skip
    for variable, (name, room) in names.items():
        if name not in study[room]:
            hint = suggest_name(name, list(study[room]))
            raise ForetuneError(f"{variable}={name}: is not in the study's {room}{hint}")
    if trains_on_embeddings(method):
        raise ForetuneError(
            f"METHOD={method}: trains a head on embeddings, and its model is the base model; "
            "fine-tuned models can be exported"
        )
    if get_base_method(method) == "lp_ft":
        raise ForetuneError(
            f"METHOD={method}: predicts by a layer that a dual encoder has no place for; models "
            "that predict by captions can be exported, such as those of full and flyp"
        )
    run = f"{model}/{method}/{dataset}"
    path = Path(f"results/selected/{run}.json")
    if study["methods"][method]["parts"] == 1:
        path = Path(f"results/trials/{run}/0/best.json")
    if not path.is_file():
        raise ForetuneError(f"{path}: no such file; run the study first")
    selection: Selection = read_json(path, Selection)
    if selection.get("diverged"):
        raise ForetuneError(f"{path}: every trial diverged, so that there is no model to export")
    return selection


def work() -> None:
    parser = cli.make_parser(__doc__)
    for name in ("model", "method", "dataset"):
        parser.add_argument(f"--{name}", required=True, help=f"name of the {name} in the study")
    parser.add_argument(
        "--wise-ft", type=float, default=1.0,
        help="share of the fine-tuned weights, from 0 to 1; the rest are the base model's",
    )  # fmt: skip
    cli.add_path_options(parser, study="config of the study", output="new folder")
    args = parser.parse_args()
    study, output = check_config(read_study(args.study)), args.output
    run = find_selection(study, args.model, args.method, args.dataset)
    if not 0 <= args.wise_ft <= 1:
        raise ForetuneError(f"WISE_FT={args.wise_ft:g}: is not between 0 and 1")
    if output.exists():
        raise ForetuneError(f"{output}: exists already; name a new folder")
    import pandas as pd

    from foretune.core.parquet import read_frame
    from foretune.data.prepared import read_manifest
    from foretune.evaluation.export import export_model
    from foretune.report.model_card import write_model_card

    spec = study["models"][args.model]
    tables = [EVALUATIONS / args.model / f"{name}.parquet" for name in ("zero_shot", args.method)]
    tested = all(table.is_file() for table in tables)
    outcomes = pd.concat(map(read_frame, tables)) if tested else None
    manifest = read_manifest(Path("results/datasets", args.dataset))
    entry = study["datasets"][args.dataset]
    manifest["caption"] = format_caption(entry.get("caption", manifest["caption"]))
    beside = output.with_name(f".{output.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        export_model(spec, Path(run["trained_weights"]), args.wise_ft, beside)
        card = write_model_card(
            spec, run, manifest, outcomes, args.wise_ft, study["title"], output.name
        )
        (beside / "README.md").write_text(card)
        beside.rename(output)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    cli.log(f"{output}: load it by open_clip.create_model_and_transforms('local-dir:{output}')")


if __name__ == "__main__":
    cli.main(work)
