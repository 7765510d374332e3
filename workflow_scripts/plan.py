"""Print what a study will take before its first job: jobs, hours, disk and memory.

Nothing is run or downloaded. The jobs are those that Snakemake would run now.
"""

import subprocess
import sys
from pathlib import Path

from foretune.core import cli


def work() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--study", type=Path, default=Path("config.yaml"), help="config file")
    parser.add_argument("--profile", default="profiles/local", help="profile of Snakemake")
    parser.add_argument(
        "--tflops", type=float, help="a GPU's real speed in training; by default an A100's"
    )
    parser.add_argument(
        "--no-timing",
        action="store_true",
        help="do not time the models whose weights are on this machine",
    )
    args = parser.parse_args()
    from foretune.core.config import check_config
    from foretune.core.errors import ForetuneError
    from foretune.core.study_file import read_study
    from foretune.planning.job_times import read_jobs
    from foretune.planning.plan import plan_study

    dry_run = [sys.executable, str(Path(__file__).with_name("run_study.py")), "-n"]
    dry_run += ["--study", str(args.study), "--profile", args.profile]
    done = subprocess.run(dry_run, capture_output=True, text=True)
    if done.returncode:
        raise ForetuneError(f"the dry run failed:\n{done.stdout}{done.stderr}".strip())
    study = check_config(read_study(args.study))
    if "outcomes" in study:
        study["methods"] = {}  # nothing is trained
    jobs = read_jobs(done.stdout)
    print(plan_study(study, jobs, time_steps=not args.no_timing, tflops=args.tflops))


if __name__ == "__main__":
    cli.main(work)
