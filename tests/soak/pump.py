"""Plays many boards on pseudo terminals, in a process of its own: `python -m tests.soak.pump PORTS SETS RATE SECONDS SEED`.

Makes PORTS x SETS ptys, prints their names as JSON, waits for a line on standard input, sends the same text on the n-th pty
of each set at RATE bytes/s, in pieces as a USB adapter delivers them (every 10 ms), and prints the digests as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import tty


def text_of(port: int, size: int) -> bytes:
    """About `size` bytes of a talkative firmware, different for each port."""
    out = bytearray()
    n = port * 7919
    while len(out) < size:
        n += 1
        out += (
            f"I ({n * 13}) sensor: round {n}, temperature {20 + n % 9}.{n % 10} C, humidity {40 + n % 30} %\r\n"
            f"D ({n * 13 + 2}) wifi: rssi -{40 + n % 40}, heap {120_000 + n % 7777}\r\n"
        ).encode()
    return bytes(out[:size])


def main() -> None:
    """Entry point."""
    ports, sets, rate, seconds = (int(x) for x in sys.argv[1:5])
    masters: list[list[int]] = []
    names: list[list[str]] = []
    slaves = []  # kept open: the first reader may come late without a hang-up
    for _ in range(sets):
        masters.append([])
        names.append([])
        for _ in range(ports):
            master, slave = os.openpty()
            tty.setraw(slave)
            os.set_blocking(master, False)
            masters[-1].append(master)
            names[-1].append(os.ttyname(slave))
            slaves.append(slave)
    print(json.dumps(names), flush=True)
    sys.stdin.readline()
    ring = 1 << 16
    texts = [text_of(p, ring) * 2 for p in range(ports)]
    sent = [[0] * ports for _ in range(sets)]
    begin = time.monotonic()
    stalls = 0
    while True:
        now = time.monotonic() - begin
        due = int(min(now, seconds) * rate)
        waiting = 0
        for p in range(ports):
            text = texts[p]
            for s in range(sets):
                at = sent[s][p]
                if at < due:
                    start = at % ring
                    try:
                        sent[s][p] = at + os.write(masters[s][p], text[start : start + min(due - at, ring)])
                    except BlockingIOError:
                        stalls += 1
                    waiting += due - sent[s][p]
        if now >= seconds and not waiting:
            break
        if now > seconds + 30:
            break
        time.sleep(0.01)
    digests = []
    total = sent[0][0]
    for p in range(ports):
        whole = hashlib.sha256()
        left = sent[0][p]
        while left > 0:
            piece = texts[p][: min(left, ring)]
            whole.update(piece)
            left -= len(piece)
        digests.append([sent[0][p], whole.hexdigest()])
    print(
        json.dumps(
            {"digests": digests, "sent": total, "stalls": stalls, "equal": all(x == total for s in sent for x in s)}
        ),
        flush=True,
    )
    sys.stdin.readline()


if __name__ == "__main__":
    main()
