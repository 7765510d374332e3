"""Cancel the Slurm jobs that a killed Snakemake left in this folder, and wait until they end.

Run it in the study's folder before the next run, which would write the same files as those jobs.
Results are kept, and fine-tuning resumes after its last finished epoch.
"""

from foretune.core import cli
from foretune.core.slurm import cancel_orphans


def work() -> None:
    cli.make_parser(__doc__).parse_args()
    cancel_orphans(cli.log)


if __name__ == "__main__":
    cli.main(work)
