"""`python -m tests.bench [AREA ...]`: runs the benchmarks in this folder and prints their rows."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main(wanted: list[str]) -> int:
    areas = sorted(
        path.stem
        for path in Path(__file__).parent.glob("*.py")
        if not path.stem.startswith("_") and path.stem != "rows"
    )
    unknown = set(wanted) - set(areas)
    if unknown:
        print(f"no such benchmark: {', '.join(sorted(unknown))}; there are: {', '.join(areas)}", file=sys.stderr)
        return 2
    for area in wanted or areas:
        print(f"== {area}", flush=True)
        for row in importlib.import_module(f"tests.bench.{area}").run():
            print(f"  {row}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
