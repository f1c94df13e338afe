"""`warmline COMMAND`: each command is a module with `add_arguments(parser)` and `run(args) -> exit status`."""

import argparse
import asyncio
import importlib
import inspect
import sys
from collections.abc import Sequence

# Imported only when used: a prompt on the command line should not wait for a server's imports.
_COMMANDS = {
    "serve": ("warmline_cli.serve", "run the server"),
    "simulate": ("warmline_simulator.cli", "run the scripted upstream"),
    "turn": ("warmline_cli.turn", "send a prompt or a conversation, stream the answer"),
    "trace": ("warmline_cli.trace", "reduce, show and search recorded traces"),
    "config": ("warmline_cli.config", "check the configuration, or print what there is to configure"),
    "demo": ("warmline_cli.demo", "simulator, server and a few turns, with what happened"),
}

# As shells report a program that SIGINT ended.
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns: its exit status; 2 for a wrong command line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="warmline", description="Holds an agent's line to its model.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wanted = next((word for word in arguments if not word.startswith("-")), None)
    run = None
    for name, (module_name, help_text) in _COMMANDS.items():
        command = commands.add_parser(name, help=help_text, description=help_text)
        if name == wanted:
            module = importlib.import_module(module_name)
            module.add_arguments(command)
            run = module.run
    args = parser.parse_args(arguments)
    assert run is not None, "the parser accepts only known commands"
    try:
        status = run(args)
        return int(asyncio.run(status) if inspect.iscoroutine(status) else status)
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
