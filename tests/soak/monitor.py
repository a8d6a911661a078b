"""`python -m tests.soak.monitor [SECONDS [SEED]]`: the monitor on a pty that sends anything and is unplugged at any time.

Checked all along: it lives, the raw log is exactly what was sent, nothing that steers a terminal is shown, memory stays
bounded. Ends with what was seen; status 1 at the first difference.
"""

from __future__ import annotations

import random
import re
import sys
import tempfile
import time
from pathlib import Path

from tests.fakes.watched_pty import ROOT, Espmon, PtyBoard, wait_until

_STEERING = re.compile("\x1b(?!\\[[0-9;]*m|\\[K|\\[[0-9]{0,3}[CD])|[\x00-\x06\x07\x0e-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_RSS_LIMIT_MB = 250


def pieces(random_: random.Random) -> bytes:
    """Something that a board might send, or might not."""
    corpus = sorted((ROOT / "tests" / "corpus").glob("*/log.txt"))
    match random_.randrange(6):
        case 0:
            return random_.randbytes(random_.randrange(1, 5000))
        case 1:
            parts = [b"\x1b", b"[", b"]0;", b"m", b"\x9b", b"\x07", b"\xe2\x82", b"\r", b"\n", b"38;5;", b"?", b"K", b"\x90", b"A"]
            return b"".join(random_.choices(parts, k=random_.randrange(1, 400)))
        case 2:
            return bytes([random_.randrange(256)]) * random_.randrange(1, 20_000)
        case 3:
            return "".join(f"line {n} grüße €\r\n" for n in range(random_.randrange(1, 300))).encode()
        case _:
            content = random_.choice(corpus).read_bytes()
            cut = random_.randrange(len(content) + 1)
            return content[cut:] if random_.random() < 0.3 else content


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text() if sys.platform == "linux" else ""
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else 0.0


def run(seconds: float, seed: int) -> str:
    """Raises AssertionError when something is wrong; a line about what was done else."""
    random_ = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        board = PtyBoard(Path(folder) / "board")
        raw, elf = Path(folder) / "raw", ROOT / "symbols" / "demo" / "weather.elf"
        options = random_.sample(["--timestamps", "--level=info", "--exclude=^(x+x+)+y", "--filter=."], random_.randrange(4))
        run_ = Espmon(board.name, "--raw-log", str(raw), "--elf", str(elf), *options, terminal=True)
        sent = highest = 0.0
        expected = bytearray()
        unplugged = 0

        def all_kept() -> bool:
            run_.text  # noqa: B018 - its output is taken, or it would wait
            return raw.stat().st_size == len(expected)

        try:
            run_.wait_for("115200")
            limit = time.monotonic() + seconds
            while time.monotonic() < limit:
                content = pieces(random_)
                board.say(content)
                expected += content
                sent += len(content)
                shown = run_.text
                cut = shown.find("\x1b", max(0, len(shown) - 16))  # a sequence that is still being read
                shown = shown if cut < 0 else shown[:cut]
                assert not (found := _STEERING.search(shown)), f"seed {seed}: {shown[max(0, found.start() - 40) : found.end() + 10]!r}"
                run_.out = run_.out[run_.out.find(b"\x1b", max(0, len(run_.out) - 16)) :] if cut >= 0 else b""
                highest = max(highest, rss_mb(run_.process.pid))
                assert run_.process.poll() is None, f"seed {seed}: ended with {run_.process.returncode}: {shown[-2000:]}"
                assert highest < _RSS_LIMIT_MB, f"seed {seed}: {highest:.0f} MB"
                if random_.random() < 0.02:  # what a hung up pty's reader has not taken is lost: first let it take all
                    wait_until(all_kept)
                    board.unplug()
                    run_.wait_for("is gone")
                    board.plug_in()
                    run_.wait_for("is back")
                    unplugged += 1
            wait_until(all_kept, 60)
            assert raw.read_bytes() == bytes(expected), f"seed {seed}: the raw log differs"
            run_.type(b"\x1d")
            assert run_.end() == 0, f"seed {seed}: status {run_.process.returncode}"
            return f"seed {seed}: {sent / 1e6:.1f} MB, unplugged {unplugged} times, at most {highest:.0f} MB of memory"
        finally:
            run_.close()
            board.unplug()


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    limit = time.monotonic() + seconds
    while (left := limit - time.monotonic()) > 1:
        print(run(min(left, 20.0), seed), flush=True)
        seed += 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
