"""The command line: parse, call one function below, print, exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

from passband.core.errors import PassbandError, one_line

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 all well, 1 a judged claim fails, 2 the user can mend it, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    _answer_sigterm()
    try:
        sys.exit(_run(arguments or ["--help"]))
    except PassbandError as error:
        if debug:
            raise
        _stop(str(error), 2)
    except KeyboardInterrupt:
        if debug:
            raise
        _stop("interrupted; the same command goes on from what was finished", INTERRUPTED)


def _answer_sigterm() -> None:
    """Let SIGTERM, which a batch system sends before it kills, end a command as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        return  # Python gives signals to the main thread alone.
    own = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:
            # A forked worker, which inherits this: whoever forked it ends it, without a word.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


def _run(arguments: list[str]) -> int:
    from passband.cli.app import run

    try:
        code = run(arguments)
    except Exception as error:
        # Typer's own complaints about the command line know how to say themselves in one line.
        if hasattr(error, "format_message"):
            raise PassbandError(f"{error.format_message()} (`passband --help` shows the commands)") from None
        raise
    if code == INTERRUPTED:
        # Typer turns Ctrl-C into its exit code without a word.
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _stop(text: str, code: int) -> None:
    # Python ends itself by SIGINT where one came while it ran a text, as a dataclass has it do on import, even if it
    # was answered since; to run another text makes it forget.
    exec("")
    print(f"passband: {one_line(text)}", file=sys.stderr)
    sys.exit(code)
