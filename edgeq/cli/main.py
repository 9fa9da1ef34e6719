"""`edgeq`: finds the command, and turns errors into sentences and exit statuses.

0 fine, 1 failed at run time, 2 wrong usage, 78 wrong configuration (systemd must not restart that), 130 ended by
Ctrl-C.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from ..errors import ConfigError, EdgeqError
from ..telemetry.log import printable
from . import early
from .printing import say_error

EXIT_FAILED = 1
EXIT_CONFIG = 78
EXIT_INTERRUPTED = 130

_REST_SECONDS = 5.0
_COMPLETING = "_EDGEQ_COMPLETE"

log = logging.getLogger("edgeq.app")

# Command -> module of this package and the function in it; imported only when that command is called.
_COMMANDS = {
    "run": ("run", "run"),
    "work": ("work", "work"),
    "demo": ("demo", "demo"),
    "check": ("check", "check"),
    "reload": ("reload", "reload"),
    "doctor": ("doctor", "doctor"),
    "status": ("status", "status"),
    "events": ("events", "events"),
    "emit": ("events", "emit"),
    "jobs": ("jobs", "jobs"),
    "queues": ("queues", "queues"),
    "schedules": ("schedules", "schedules"),
    "processors": ("processors", "processors"),
    "contracts": ("contracts", "contracts"),
    "notifications": ("notifications", "notifications"),
    "silence": ("silence", "silence"),
    "dead-letters": ("dead_letters", "dead_letters"),
    "db": ("db", "db"),
    "new": ("new", "new"),
    "completion": ("completion", "completion"),
}
_LONG = ("run", "work")


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"edgeq.cli.{module}"), name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The names alone: for their help, all of them would have to be imported."""
        names = [CompletionItem(name) for name in _COMMANDS if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in _LONG and ctx.obj["own_process"]:
            early.heed()
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            from ..config.suggest import did_you_mean

            raise click.UsageError(f"no such command {args[0]!r}; {did_you_mean(args[0], _COMMANDS)}", ctx) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("-c", "--config", "config_path", type=click.Path(), metavar="FILE", help="The configuration file.")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@click.version_option(package_name="edgeq", prog_name="edgeq")
@click.pass_context
def cli(ctx: click.Context, config_path: str | None, verbose: bool) -> None:
    """An MQTT-triggered queue for gateways: nothing lost, nothing silent."""
    ctx.obj = {"config_path": config_path, "verbose": verbose}


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every terminal has every character
    if _COMPLETING in os.environ:
        sys.stderr = io.StringIO()  # somebody is typing: what goes wrong is nothing to be said
    status = EXIT_FAILED
    try:
        status = _run(sys.argv[1:] if args is None else args, own_process=args is None)
        sys.stdout.flush()
    except BrokenPipeError:
        status = EXIT_FAILED  # nobody reads on: nothing to say
    except OSError as error:
        say_error(str(error))
        status = EXIT_FAILED
    finally:
        if args is None and _waits_for():
            threading.Thread(target=_end, args=(status,), daemon=True).start()
    sys.exit(status)


def _open_streams() -> None:
    """What is closed of the standard streams leads nowhere: else a file of ours would get its number, and what is
    printed."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115 - as long as the process lasts
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115


def _waits_for() -> list[str]:
    """The threads that Python waits for before it ends, for ever if it must."""
    return [each.name for each in threading.enumerate() if not each.daemon and each is not threading.main_thread()]


def _end(status: int) -> None:
    """End the program although threads go on: those of the user's own code may hang."""
    time.sleep(_REST_SECONDS)
    log.warning("ending without threads that go on: %s", ", ".join(_waits_for()))
    logging.shutdown()
    os._exit(status)


def _run(args: Sequence[str], *, own_process: bool) -> int:
    try:
        for arg in args:
            if not arg.isascii() and any("\ud800" <= sign <= "\udfff" for sign in arg):
                raise click.UsageError(f"an argument isn't UTF-8: {printable(arg)}")
        status = cli.main(args=args, prog_name="edgeq", standalone_mode=False, obj={"own_process": own_process})
    except ConfigError as error:
        for problem in error.problems:
            say_error(str(problem))
        count = len(error.problems)
        say_error(f"the configuration has {count} mistake{'s' if count > 1 else ''}")
        return EXIT_CONFIG
    except EdgeqError as error:
        say_error(f"{error}" + (f" ({error.hint})" if error.hint else ""))
        return EXIT_FAILED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    return status if isinstance(status, int) else 0


if __name__ == "__main__":
    main()
