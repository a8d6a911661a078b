"""A crash-looping ESP8266 at two rates, followed for many boots: ``python -m tests.soak.rates [--boots 1000]``.

Every reset cause must be reported and no application line lost. Virtual time; ten minutes of a board take about a minute.
"""

from __future__ import annotations

import argparse
import sys

from tests.uart import live


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--boots", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    boots = lines = reported = shown = changes = 0
    for part in range((args.boots + 99) // 100):  # a wire of bounded length
        session, causes, sent = live.crash_loop(min(100, args.boots - 100 * part), seed=args.seed * 1000 + part)
        told = [banner.cause for banner in session.banners]
        boots += len(causes)
        reported += len(causes) if told == causes else sum(a == b for a, b in zip(told, causes, strict=False))
        lines += len(sent)
        shown += live.lines_found(session, sent)
        changes += len(session.changes)
    print(f"{boots} boots: {reported} causes reported right; {lines} application lines: {shown} shown; {changes} changes of rate")
    return 0 if (reported, shown, changes) == (boots, lines, 0) else 1


if __name__ == "__main__":
    sys.exit(main())
