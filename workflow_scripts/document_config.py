"""Write docs/configuration.md from the schema of the config."""

import yaml

from foretune.core import cli
from foretune.core.config import CONFIG_SCHEMA
from foretune.core.config_reference import render_reference
from foretune.core.files import atomic_write


def work() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_path_options(parser, output="Markdown file to write")
    args = parser.parse_args()
    with atomic_write(args.output) as path:
        path.write_text(render_reference(yaml.safe_load(CONFIG_SCHEMA.read_text())))


if __name__ == "__main__":
    cli.main(work)
