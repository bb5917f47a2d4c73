"""Asks where a gang would go: ``python -m windfall.provisioner.placement question.yaml [-o table|json]``.

Ends with 0 when a site takes the gang, 1 when none does, 2 when the question cannot be read.
"""

import argparse
import sys
from pathlib import Path

from windfall.provisioner.placement import ask
from windfall.provisioner.placement.decision import place
from windfall.provisioner.placement.explanation import explain
from windfall.servicekit.errors import ExitCode, Mistake


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m windfall.provisioner.placement", description=__doc__)
    parser.add_argument("question", type=Path, metavar="FILE", help="YAML: the need, and the sites with their files")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    asked = parser.parse_args(arguments)
    try:
        need, sites = ask.read(asked.question)
    except Mistake as mistake:
        sys.stderr.write(f"placement: {mistake}\n")
        return mistake.exit_code
    placed, verdicts = place(need, sites), explain(need, sites)
    text = ask.in_json(placed, verdicts) if asked.output == "json" else ask.in_words(verdicts)
    sys.stdout.write(f"{text}\n")
    return ExitCode.OK if placed else ExitCode.FAILED


if __name__ == "__main__":
    sys.exit(main())
