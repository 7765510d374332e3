"""Count the parameters and operations of open_clip's architectures, for what jobs ask of clusters.

The table is bundled, because a dry run cannot build models. An architecture whose text tower comes
from Hugging Face cannot be built without a network: its numbers are those of open_clip's table
docs/model_profile.csv, if it has any.
"""

import csv
import gc

from foretune.core import cli
from foretune.core.files import atomic_write
from foretune.planning.job_resources import ARCHITECTURES

# Millions of parameters, and 10^9 operations of an image and a caption.
PUBLISHED = {
    "coca_roberta-ViT-B-32": (420.37, 8.82, 13.12), "mt5-base-ViT-B-32": (365.71, 8.82, 13.3),
    "mt5-xl-ViT-H-14": (2306.75, 334.59, 179.45), "nllb-clip-base": (501.89, 8.82, 360.78),
    "nllb-clip-large": (1399.22, 334.59, 1133.87), "roberta-ViT-B-32": (212.72, 8.82, 97.05),
    "xlm-roberta-base-ViT-B-32": (366.12, 8.82, 97.05),
    "xlm-roberta-large-ViT-H-14": (1193.01, 334.59, 336.42),
}  # fmt: skip


def work() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--architectures", nargs="*", help="names; all of open_clip's by default")
    cli.add_path_options(parser, output=f"CSV file, such as {ARCHITECTURES}")
    args = parser.parse_args()
    from foretune.core.errors import ForetuneError
    from foretune.encoders.imports import open_clip
    from foretune.planning.model_costs import count_costs

    rows = []
    for name in args.architectures or sorted(open_clip.list_models()):
        try:
            cost = count_costs({"architecture": name})
            rows.append([name, cost.parameters, round(cost.image), round(cost.caption)])
        except ForetuneError as error:
            if name in PUBLISHED:
                millions, *billions = PUBLISHED[name]
                rows.append([name, round(1e6 * millions), *(round(1e9 * b) for b in billions)])
            else:
                cli.log(f"{name}: {error}")
        gc.collect()
    with atomic_write(args.output) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["architecture", "parameters", "image", "caption"])
        writer.writerows(rows)
    cli.log(f"{args.output}: {len(rows)} architectures")


if __name__ == "__main__":
    cli.main(work)
