"""The ``windfall`` command: what a person can type stands in ``commands``; here is how it ends.

How it ends:

====  ==================================================================================
code  meaning
====  ==================================================================================
0     done
1     something broke that is not listed below
2     a wrong argument, setting or input file: a trace row, a site, an event
3     a port in use, a folder missing or not writable, a program not found
4     a server that cannot be reached, refuses us, or is too old
5     the disk is full
6     a dry run found that something would change; ``profile diff``, that something has;
      ``checkpoint``, that a model is another than was said
130   interrupted; nothing is left running
====  ==================================================================================

Whatever a person can mend is told in one line on standard error, ``windfall: <cause>. <cure>``.
"""

import asyncio
import errno
import os
import sys
from collections.abc import Callable
from typing import Final, NoReturn

import click

from windfall.cli.commands.lazily import Commands
from windfall.cli.commands.options import COMPLETE, MACHINES
from windfall.servicekit.errors import ExitCode, Mistake

EPILOG = """\b
Exit codes: 0 done; 1 failed; 2 wrong argument, setting or input; 3 port in use,
folder or program missing; 4 server unreachable or too old; 5 disk full;
6 a dry run or a diff found differences, or a model is another; 130 interrupted, with nothing left running.
"""
WHERE: Final = {
    **dict.fromkeys(("contributions", "demo", "keys", "nkeys", "report", "run", "simulate", "stage"), "running"),
    **dict.fromkeys(("completion", "describe", "doctor", "explain", "get", "wait", "watch"), "seeing"),
    **dict.fromkeys(("cordon", "drain", "pause", "readmit", "resume", "rollback", "stop", "uncordon"), "operating"),
    **dict.fromkeys(("links", "profile"), "hardware"),
    **dict.fromkeys(("apply", "delete"), "declaring"),
    **dict.fromkeys(("hub", "site"), "identity"),
    "tenant": "tenancy",
    **dict.fromkeys(("dlq", "events"), "bus"),
    "checkpoint": "checkpoints",
    "context": "contexts",
    "fleet": "gitops",
    "logs": "logs",
    "plan": "planning",
    "web": "page",
}
"""Every command, and the module of ``commands`` that it stands in."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main() -> NoReturn:
    """The console script: run the command, and end with a documented code."""
    # Looking through all that is installed for plugins takes pydantic longer than a command should take to begin.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")
    sys.exit(_ended(_command))


def _command() -> None:
    if instruction := os.environ.get(COMPLETE):
        from click.shell_completion import shell_complete

        raise click.exceptions.Exit(shell_complete(windfall, {}, "windfall", COMPLETE, instruction))
    # Not click's own main: it turns a closed pipe into a failure.
    with windfall.make_context("windfall", sys.argv[1:]) as context:
        windfall.invoke(context)


def _ended(command: Callable[[], None]) -> int:
    try:
        command()
        sys.stdout.flush()
        return ExitCode.OK
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except Mistake as mistake:
        _complain(str(mistake))
        return mistake.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USAGE
    except click.ClickException as error:
        _complain(_usage(error))
        return ExitCode.USAGE
    except (KeyboardInterrupt, click.Abort, asyncio.CancelledError):
        _complain("interrupted. Nothing is left running")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our lines has read enough. What is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        if error.errno in _FULL:
            _complain(f"the disk is full{where} ({error.strerror}). Free space, or write elsewhere, and start again")
            return ExitCode.DISK_FULL
        _complain(f"the system refuses{where} ({error.strerror}). Check that this user may use it")
        return ExitCode.RESOURCE


def _usage(error: click.ClickException) -> str:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{error.format_message().rstrip('.')}. See `{error.ctx.command_path} --help`"
    return f"{error.format_message().rstrip('.')}. See `windfall --help`"


def _complain(text: str) -> None:
    print(f"windfall: {' '.join(text.split())}", file=sys.stderr)


@click.group(cls=Commands, where=WHERE, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="windfall-cli", message="windfall %(version)s")
def windfall() -> None:
    """Train where the power is a windfall."""


@windfall.command()
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(("table", "json", "yaml")),
    default="table",
    show_default=True,
    help=MACHINES,
)
def version(form: str) -> None:
    """Print the versions of what runs here."""
    from windfall.cli.report import versions
    from windfall.cli.resources.versioned import single

    if form != "table":
        print(single("Versions", {"versions": versions()}, form))
    else:
        found = versions()
        width = max(map(len, found))
        for name, told in found.items():
            print(f"{name:{width}} {told}")


if __name__ == "__main__":
    main()
