"""Write the study's report, one self-contained HTML file, and its provenance."""

import json
from pathlib import Path

from foretune.core import cli


def work() -> None:
    parser = cli.make_parser(__doc__)
    for name in ("epochs", "datasets", "measures"):
        parser.add_argument(f"--{name}", type=Path, nargs="+", required=True)
    parser.add_argument("--config", type=json.loads, required=True, help="the study, as JSON")
    parser.add_argument("--forecast", type=Path, help="folder of forecasts, where there are some")
    cli.add_path_options(
        parser, analysis="folder", provenance="JSON to write", output="HTML to write"
    )
    args = parser.parse_args()
    from foretune.report.build import build_report
    from foretune.report.provenance import write_provenance

    write_provenance(args.config, args.datasets, args.measures, args.provenance)
    build_report(
        args.analysis, args.epochs, args.datasets, args.provenance, args.output,
        args.config["title"], args.forecast,
    )  # fmt: skip


if __name__ == "__main__":
    cli.main(work)
