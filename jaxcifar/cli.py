"""What the commands share: flags, the config and its overrides, --help, exit codes."""

import os
import pathlib
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging
from ml_collections import ConfigDict

from jaxcifar import config as config_lib
from jaxcifar import distributed, errors, output
from jaxcifar.config_keys import all_keys
from jaxcifar.progress import DivergedError
from jaxcifar.spec import ConfigError, first_line

CONFIG = flags.DEFINE_string(
    "config", None, "the config file, such as configs/part1.py (or just part1)"
)
WORKDIR = flags.DEFINE_string("workdir", None, "the run's work directory")


def launch(
    command: Callable[..., int],
    description: str,
    own_flags: Sequence[flags.FlagHolder],
    *,
    takes_config: bool = False,
    takes_arguments: bool = False,
) -> None:
    """Runs a command and exits: 0 done; 1 a bug (its traceback in a file); 2 what the user has to
    fix, in plain words on stderr; 3 training diverged; 129, 130 and 143 stopped by
    SIGHUP, SIGINT and SIGTERM (the last by training itself); else what the command returns.

    Args:
        command: called with the config and the arguments, each if it takes them.
        description: shown by --help, before the flags.
        own_flags: the command's flags.
        takes_config: whether --config is required and `--config.KEY=VALUE` overrides it.
        takes_arguments: whether the command takes arguments that are not flags, such as files.
    """

    def parse(argv: list[str]) -> list[str]:
        try:
            for flag in argv[1:]:
                if flag.startswith("-config") and takes_config:
                    raise flags.Error(f"{flag} has one dash: write -{flag}")
            if any(flag.lstrip("-").split("=")[0] in _HELP for flag in argv):
                _print_help(description, own_flags, argv if takes_config else None)
                sys.exit(0)
            overrides = _overrides(argv) if takes_config else []
            others = [flag for flag in argv if flag not in overrides]
            flags.FLAGS.set_gnu_getopt(takes_arguments)  # flags may follow arguments
            positional = flags.FLAGS(others)[1:]
            if CONFIG.present and all(flag is not CONFIG for flag in own_flags):
                raise flags.Error("--config is not a flag of this command")
            if positional and not takes_arguments:
                raise flags.Error(
                    f"{positional[0]!r} is not a flag; values follow '=': --flag=value"
                )
        except flags.UnrecognizedFlagError as error:
            keys = [key for key in all_keys() if key.split(".")[-1] == error.flagname]
            keys = keys if takes_config else []
            hint = " or ".join(f"--config.{key}=VALUE" for key in keys)
            _fail(f"--{error.flagname} is not a flag; write {hint}" if hint else error)
        except (flags.Error, ConfigError) as error:
            _fail(error)
        return argv[:1] + overrides + positional

    def run(argv: list[str]) -> int:
        logging.set_verbosity(logging.FATAL)  # Orbax logs there, also the errors that it raises
        try:
            with errors.machine():
                arguments = argv[1:]
                inputs = []
                if takes_config:
                    overrides = [flag for flag in arguments if flag.startswith("--config.")]
                    inputs.append(load_config(overrides))
                    arguments = arguments[len(overrides) :]  # parse() has put them first
                if takes_arguments:
                    inputs.append(arguments)
                return command(*inputs)
        except ConfigError as error:
            return distributed.exit_code(_report(error), error)
        except DivergedError as error:
            _report(error)
            return 3
        except KeyboardInterrupt:
            # At once: a second Ctrl-C does not wait for a save in the background
            if sys.stdout:
                sys.stdout.flush()
            os._exit(130)
        except Exception as error:
            return distributed.exit_code(_report_bug(error))

    output.protect()
    app.run(run, flags_parser=parse)


def load_config(overrides: Sequence[str]) -> ConfigDict:
    """Returns the config that --config names, with overrides such as "--config.seed=1"."""
    if not CONFIG.value:
        raise ConfigError("--config is missing: name a config file, such as configs/quickstart.py")
    config = config_lib.load(CONFIG.value)
    _override(config, overrides)
    return config


def _override(config: ConfigDict, overrides: Sequence[str]) -> None:
    for flag in overrides:
        name, _, text = flag.removeprefix("--config.").partition("=")
        config_lib.override(config, name, text)


_HELP = ("help", "helpshort", "helpfull")


def _print_help(
    description: str, own_flags: Sequence[flags.FlagHolder], argv: list[str] | None
) -> None:
    """Prints the help; `argv` may name a config file, whose values are shown then."""
    print(f"{description}\nflags:")
    for flag in own_flags:
        print(f"  --{flag.name}\n      {flags.FLAGS[flag.name].help}")
    if argv is None:
        return
    config = config_lib.default()
    names = [flag.partition("=")[2] for flag in argv if flag.startswith("--config=")]
    try:
        if names:
            config = config_lib.read(names[-1])
        _override(config, _overrides(argv))
    except (ConfigError, flags.Error) as error:
        print(f"error: {error}", file=sys.stderr)
    print(f"keys:\n{config_lib.describe(config)}")


def _overrides(argv: list[str]) -> list[str]:
    overrides = [flag for flag in argv[1:] if flag.startswith("--config.")]
    for flag in overrides:
        if "=" not in flag:
            group = flag.removeprefix("--config.")
            if any(key.startswith(f"{group}.") for key in all_keys()):
                raise flags.Error(f"{flag} is a group of keys; --help lists them")
            raise flags.Error(f"{flag} has no value; write {flag}=VALUE")
    return overrides


def _report(error: Exception) -> int:
    hint = getattr(error, "command_hint", "")
    print(f"error: {error}" + (f"; {hint}" if hint else ""), file=sys.stderr)
    return 2


def _report_bug(error: Exception) -> int:
    log = getattr(error, "log", None)
    if log is None:  # it did not happen in a run
        path = pathlib.Path(os.environ.get("TMPDIR", "/tmp"))
        log = errors.write_log(path / f"jaxcifar-error-{os.getpid()}.log", error)
    where = f"the traceback in {log}" if log else "this message"
    print(
        f"error: unexpected {type(error).__name__}: {first_line(error)}; please report it with "
        f"{where}",
        file=sys.stderr,
    )
    return 1


def _fail(error: object) -> None:
    sys.exit(_report(error))
