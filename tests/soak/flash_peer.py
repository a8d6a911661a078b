"""How often real esptool reaches the goal that tests.soak.flash sets: the same board, the same image, the same losses.

In real time, behind a pty, so some ten seconds a run: ``python -m tests.soak.flash_peer --runs 40``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.flash import ROOT, board_on_pty
from tests.soak.flash import image_for


def esptool_share(loss: float, runs: int, kib: int = 300, first_seed: int = 0) -> tuple[int, int]:
    """`(runs that ended with the right flash and status 0, runs)`."""
    reached = 0
    with tempfile.TemporaryDirectory() as name:
        flash, file = Path(name) / "flash.bin", Path(name) / "image.bin"
        for seed in range(first_seed, first_seed + runs):
            image = image_for("esp8266", kib, seed)
            file.write_bytes(image)
            flash.write_bytes(b"\xff" * (4 << 20))
            with board_on_pty("esp8266", flash, f"lose={loss}", f"seed={seed}") as tty:
                command = [sys.executable, "-m", "esptool", "--port", tty, "--baud", "460800", "--before", "no-reset",
                           "--after", "no-reset", "write-flash", "0", str(file)]  # fmt: skip
                done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=300)
            reached += done.returncode == 0 and flash.read_bytes()[: len(image)] == image
    return reached, runs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--loss", type=float, action="append", help="0.01 and 0.05 when not given")
    chosen = parser.parse_args()
    for loss in chosen.loss or (0.01, 0.05):
        reached, runs = esptool_share(loss, chosen.runs)
        print(f"esptool {loss:4.0%} {runs} runs, {reached / runs:.1%} reached the goal", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
