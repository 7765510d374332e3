"""Cancel the Slurm jobs that a killed Snakemake left for this folder, and wait for their end.

Run it in the study's folder before the next run, which would otherwise write the files that
those jobs are writing. The results stay; fine-tuning goes on at its last finished epoch.
"""

from foretune.core import cli
from foretune.core.slurm import cancel_orphans


def work() -> None:
    cli.make_parser(__doc__).parse_args()
    cancel_orphans(cli.log)


if __name__ == "__main__":
    cli.main(work)
