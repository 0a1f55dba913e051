"""What the commands share: flags that are checked in plain words, --help, and exit codes."""

import sys
from collections.abc import Callable

from absl import app, flags, logging

from jaxcifar.config import ConfigError


def launch(
    command: Callable[[list[str]], int],
    description: str,
    own_flags: tuple[flags.FlagHolder, ...],
    *,
    keys: str = "",
) -> None:
    """Runs a command and exits: 0 done; 2 a mistake in flags, config or files, in plain words on
    stderr; 130 interrupted; else what the command returns.

    Args:
        command: called with the `--config.KEY=VALUE` arguments.
        description: shown by --help, before the flags.
        own_flags: the command's flags.
        keys: what --help says about `--config.KEY=VALUE`; '' where there are none of these.
    """

    def parse(argv: list[str]) -> list[str]:
        if any(
            flag.split("=")[0].lstrip("-") in ("help", "helpshort", "helpfull") for flag in argv
        ):
            print(f"{description}\nflags:")
            for flag in own_flags:
                print(f"  --{flag.name}\n      {flags.FLAGS[flag.name].help}")
            if keys:
                print(f"keys:\n{keys}")
            sys.exit(0)
        overrides = [flag for flag in argv[1:] if flag.startswith(("--config.", "-config."))]
        try:
            stray = flags.FLAGS([flag for flag in argv if not keys or flag not in overrides])[1:]
            if stray:
                raise flags.Error(f"{stray[0]!r} is not a flag; values follow '=': --flag=value")
            for flag in overrides:
                if "=" not in flag:
                    raise flags.Error(f"{flag} has no value; write {flag}=VALUE")
        except flags.Error as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        return argv[:1] + overrides

    def run(argv: list[str]) -> int:
        logging.set_verbosity(logging.WARNING)  # absl's app shows INFO, and Orbax says a lot there
        try:
            return command(argv[1:])
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            return 130

    app.run(run, flags_parser=parse)
