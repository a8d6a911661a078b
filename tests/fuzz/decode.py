"""Feeds the decoder mutated logs: ``python -m tests.fuzz.decode [SECONDS] [SEED]`` (60 s by default).

Checked for every input: nothing raises, no decoder fault, the text comes back exactly, a random split says the same as the
whole, every event is JSON with sane lines, and no input takes longer than its size allows. A finding is written to
``decode-<hash>.bin`` in the current folder and ends the run with status 1.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from pathlib import Path

from espmon.decode import Decoder
from espmon.decode.formats import FORMATS
from espmon.events import Event, Text, to_json_line

_CORPUS = Path(__file__).parent.parent / "corpus"
# Far above what any text needs (about 20 us a line of a dump, 1 us a byte in the worst line).
_SECONDS_PER_BYTE = 40e-6
_WORDS = sorted({hint.encode() for fmt in FORMATS for spec in fmt.tokens for hint in spec.hints})


def _mutated(rng: random.Random, logs: list[bytes]) -> bytes:
    data = bytearray(rng.choice(logs))
    for _ in range(rng.randrange(1, 12)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(9):
            case 0:
                del data[at : at + rng.randrange(1, 40)]
            case 1:
                data[at:at] = rng.randbytes(rng.randrange(1, 20))
            case 2:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 3:
                other = rng.choice(logs)
                start = rng.randrange(len(other) + 1)
                data[at:at] = other[start : start + rng.randrange(1, 600)]
            case 4:
                data[at:at] = rng.choice(_WORDS) * rng.choice((1, 1, 2, 50))
            case 5:
                data = bytearray(data.replace(b"\n", rng.choice((b"", b" ", b"\r\n", b"\r", b"\n\n", b"\\r\\n"))))
            case 6:
                data[at:at] = data[max(0, at - 200) : at] * rng.randrange(1, 4)
            case 7:
                data = bytearray(data.swapcase() if rng.random() < 0.2 else data[:at])
            case _:
                data[at:at] = rng.choice((b">>>stack>>>\n", b"Backtrace: 0x", b" ets Jan  8 2013,rst cause:", b"A0 : 0x", b"\x1b[", b"x" * 40000))
        if not data:
            data = bytearray(b"\n")
    return bytes(data)


def _decoded(chunks: list[bytes]) -> list[Event]:
    decoder = Decoder(file="fuzz")
    return [e for chunk in chunks for e in decoder.feed(chunk)] + decoder.close()


def problem_of(data: bytes, rng: random.Random) -> str | None:
    """What is wrong with the answer to `data`, None when nothing is."""
    start = time.process_time()
    try:
        whole = _decoded([data])
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return f"raised {error!r}"
    took = time.process_time() - start
    if took > 0.5 + len(data) * _SECONDS_PER_BYTE:
        return f"took {took:.2f} s for {len(data)} bytes"
    if b"".join(e.raw for e in whole if isinstance(e, Text)) != data:
        return "the text is not the input"
    facts = [to_json_line(e) for e in whole if not isinstance(e, Text)]
    lines = data.count(b"\n") + 1
    for line in facts:
        fact = json.loads(line)
        if fact["type"] == "decoder-fault":
            return f"decoder fault {fact['format']}: {fact['error']}"
        if not 1 <= fact["line"] <= fact["end_line"] <= lines:
            return f"lines {fact['line']} to {fact['end_line']} of {lines} in a {fact['type']}"
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(1, 9)))
    split = _decoded([data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)])
    if [to_json_line(e) for e in split if not isinstance(e, Text)] != facts:
        return f"cut at {cuts} it says something else"
    return None


def run(seconds: float, seed: int, limit: int | None = None) -> tuple[int, bytes | None, str | None]:
    """(inputs tried, the finding, what it is)."""
    rng = random.Random(seed)
    logs = [path.read_bytes() for path in sorted(_CORPUS.glob("*/log.txt"))]
    end = time.monotonic() + seconds
    tried = 0
    while time.monotonic() < end and (limit is None or tried < limit):
        data = _mutated(rng, logs)
        tried += 1
        problem = problem_of(data, rng)
        if problem is not None:
            return tried, data, problem
    return tried, None, None


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1 << 32)
    tried, data, problem = run(seconds, seed)
    if data is None:
        print(f"{tried} inputs, nothing found (seed {seed})")
        return 0
    path = Path(f"decode-{hashlib.sha256(data).hexdigest()[:12]}.bin")
    path.write_bytes(data)
    print(f"input {tried} (seed {seed}): {problem}; written to {path}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
