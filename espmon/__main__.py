"""The program's first lines: ``espmon`` and ``python -m espmon``.

Until the commands are there (a tenth of a second of imports) Ctrl-C ends us without a word, as it ends other programs: a
traceback out of some import would be told to nobody's use.
"""

from __future__ import annotations

import signal


def start() -> None:
    """Runs the program; never returns."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # else somebody wants it ignored: nohup, a shell's background job
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from espmon.cli import main

    signal.signal(signal.SIGINT, before)
    main()


if __name__ == "__main__":
    start()
