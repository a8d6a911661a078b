"""Makes ``symbols/rom/*.txt.gz`` from CSV files ``address,size,name`` (see ``symbols/README.md``).

``python -m tests.tools.make_rom_tables CSV_FOLDER [OUT_FOLDER]``. The same input always gives the same bytes.
"""

from __future__ import annotations

import csv
import gzip
import sys
from pathlib import Path

OUT = Path(__file__).resolve().parents[2] / "symbols" / "rom"


def table_text(rows: list[tuple[int, int, str]]) -> str:
    """Lines of ``step size name`` by address: `step` from the line before and `size` in hex, size left empty when 0."""
    lines = []
    before = 0
    for address, size, name in sorted(set(rows)):
        if not name.isascii() or not name.isprintable() or " " in name:
            raise ValueError(f"not a symbol name: {name!r}")
        lines.append(f"{address - before:x} {f'{size:x}' if size else ''} {name}\n")
        before = address
    return "".join(lines)


def read_csv(path: Path) -> list[tuple[int, int, str]]:
    """The rows of one CSV file."""
    with path.open(newline="", encoding="ascii") as stream:
        return [(int(row["address"], 16), int(row["size"]), row["name"]) for row in csv.DictReader(stream)]


def main(source: Path, out: Path = OUT) -> None:
    """Writes one table per CSV file."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.csv")):
        rows = read_csv(path)
        (out / f"{path.stem}.txt.gz").write_bytes(gzip.compress(table_text(rows).encode("ascii"), 9, mtime=0))
        print(f"{path.stem}: {len(rows)} symbols")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else OUT)
