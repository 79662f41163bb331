"""The command line: `marco COMMAND`, or `python -m marco_jax COMMAND`."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from marco_jax.commands.flags import check_path_flags
from marco_jax.commands.parser import create_parser
from marco_jax.extras import missing_extra
from marco_jax.runtime.host_memory import keep_freed_memory, leave_out_absent_tpu
from marco_jax.runtime.logs import configure_logging
from marco_jax.stores.connect import store_error

DONE, FAILED, BAD_INPUT = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code (0 done, 1 failed, 2 bad input, 143 stopped)."""
    parser = create_parser()
    arguments, rest = parser.parse_known_args(argv)
    unknown = [item for item in rest if not item.startswith("--config.")]
    if unknown or (rest and not hasattr(arguments, "config")):
        arguments.parser.error(f"unrecognized argument {(unknown or rest)[0]}")
    arguments.overrides = [item.removeprefix("--config.") for item in rest]
    configure_logging()
    # TensorFlow reads and tokenises data; its start-up notes do not help a user of this program.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if argv is None:
        # The process is ours, and JAX has not started.
        leave_out_absent_tpu()
        if arguments.command == "train":
            keep_freed_memory()
    # Rooms are imported by the command that needs them: --help answers at once.
    from marco_jax.runtime.errors import RunFailed

    module, _, function = arguments.function.partition(".")
    try:
        check_path_flags(arguments)
        run = getattr(importlib.import_module(f"marco_jax.commands.{module}"), function)
        return run(arguments)
    except (ValueError, OSError) as error:
        code = FAILED if store_error(error) else BAD_INPUT
        return _fail(arguments.command, error, code)
    except ModuleNotFoundError as error:
        missing = missing_extra(error.name or "")
        if missing is None:
            raise
        return _fail(arguments.command, missing, BAD_INPUT)
    except (FloatingPointError, RunFailed) as error:
        return _fail(arguments.command, error, FAILED)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if store_error(error):
            return _fail(arguments.command, error, FAILED)
        raise


def _fail(command: str, error: Exception, code: int) -> int:
    if os.environ.get("MARCO_TRACEBACK"):
        traceback.print_exc()
    print(f"marco {command}: {' '.join(str(error).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
