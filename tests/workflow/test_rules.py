"""The text of the rules: what their commands quote."""

import re

from checkout import ROOT

# Options with their values, in one param, and numbers.
UNQUOTED = {"command", "forecast", "labels", "options", "scaling", "seed", "texts", "weight"}
FIELD = re.compile(r"\{(input|output|params|wildcards|log)(?:\.(\w+))?(:q)?\}")


def test_commands_quote_every_path_and_text():
    unquoted = []
    for path in sorted((ROOT / "rules").glob("*.smk")):
        for command in re.findall(r"(?m)^    shell:\n((?:        .*\n?)+)", path.read_text()):
            unquoted += [
                f"{path.name}: {match[0]}"
                for match in FIELD.finditer(command)
                if not match[3] and not (match[1] == "params" and match[2] in UNQUOTED)
            ]
    assert not unquoted
