"""How long `espmon --help` and the first line on screen take, against importing the two libraries that they may use.

All run from compiled modules, as an installed program does (pip compiles what it installs): a checkout whose environment
forbids to write them would be compiled anew by every start.
"""

from __future__ import annotations

import os
import pty
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from tests.bench.rows import Row

ROUNDS = 11

_compiled = tempfile.TemporaryDirectory(prefix="espmon-bench-")


def _environment() -> dict[str, str]:
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": _compiled.name}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def _process(*args: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, *args], stdout=subprocess.DEVNULL, check=True, env=_environment())
    return time.perf_counter() - begun


def _first_line() -> float:
    """From starting `espmon PTY` to the first line that it shows."""
    master, slave = pty.openpty()
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "espmon", os.ttyname(slave)],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=_environment(),
    )
    assert process.stdout is not None
    select.select([process.stdout], [], [], 30)
    took = time.perf_counter() - begun
    process.kill()
    process.wait()
    process.stdout.close()
    os.close(master)
    os.close(slave)
    return took


def run() -> list[Row]:
    tasks: dict[str, Callable[[], float]] = {
        "import click, rich.console": lambda: _process("-c", "import click, rich.console"),
        "espmon --help": lambda: _process("-m", "espmon", "--help"),
        "first line on screen": _first_line,
        "python -c pass": lambda: _process("-c", "pass"),
    }
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()  # compiles
    for _ in range(ROUNDS):  # interleaved: whatever else the machine does hits all alike
        for name, task in tasks.items():
            times[name].append(task())
    middle = {name: statistics.median(taken) for name, taken in times.items()}
    reference = middle["import click, rich.console"]
    return [
        Row("import click, rich.console", reference * 1000, "ms"),
        Row("python -c pass", middle["python -c pass"] * 1000, "ms"),
        *(
            Row(name, middle[name] * 1000, "ms", middle[name] / reference, "import click, rich.console", "<= 2")
            for name in ("espmon --help", "first line on screen")
        ),
    ]
