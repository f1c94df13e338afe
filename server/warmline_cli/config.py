"""`warmline config check` says what is wrong with a configuration; `warmline config schema` prints what there is."""

import argparse
import json
import os
import sys
from pathlib import Path

from warmline_server.callers.check import check_callers
from warmline_server.settings import SettingsError, check, load
from warmline_server.settings.manual import schema


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    checking = actions.add_parser("check", help="read the configuration as the server would, and say what is wrong")
    checking.add_argument("--config", type=Path, help="TOML file; WARMLINE_* variables override it")
    actions.add_parser("schema", help="print the JSON schema of the configuration file")


def run(args: argparse.Namespace) -> int:
    """Checks. Returns: 0 when calls can work, 1 when something that they need is missing, 2 for a bad configuration."""
    if args.action == "schema":
        print(json.dumps(schema(), indent=2))
        return 0
    try:
        settings = load(args.config, os.environ)
    except SettingsError as error:
        print(f"warmline: {error}", file=sys.stderr)
        return 2
    findings = [*check(settings), *check_callers(settings.auth)]
    findings.sort(key=lambda finding: finding.level != "error")
    for finding in findings:
        print(finding)
    errors = sum(finding.level == "error" for finding in findings)
    print(f"configuration read; {errors} errors, {len(findings) - errors} warnings")
    return 1 if errors else 0
