"""Makes ``espmon/uart/ratios.bin``: what text looks like at the wrong rate, per ratio of sender's and receiver's rate.

    python -m tests.tools.train_rates [output]

Logs of ``tests/corpus`` (three of four; the fourth is held out for the measurements) are sent through the model of
`espmon.uart.wire` with receivers, clock errors and stalls drawn at random, and the received bytes are counted: each byte
given the class of the byte before it. Takes some minutes. The layout is described in `espmon/uart/rate.py`.
"""

from __future__ import annotations

import math
import random
import re
import struct
import sys
import zlib
from pathlib import Path

from espmon.uart import rate
from espmon.uart.wire import BITS_PER_CHAR, Receiver, Reception, waveform

ROOT = Path(__file__).parents[2]

def logs(held_out: bool) -> list[bytes]:
    """The corpus as it was on the wire (CR LF), every fourth file held out."""
    out = []
    for n, path in enumerate(sorted((ROOT / "tests/corpus").glob("*/log.txt"))):
        if (n % 4 == 3) == held_out:
            out.append(re.sub(rb"\r*\n", b"\r\n", path.read_bytes()))
    return out


def pieces(text: bytes, rng: random.Random) -> list[bytes]:
    """The text as it leaves a board: in runs without a pause, a line or a few long."""
    out: list[bytes] = []
    run = b""
    for line in text.splitlines(keepends=True):
        run += line
        if rng.random() < 0.4 or len(run) > 400:
            out.append(run)
            run = b""
    return [*out, run] if run else out


def heard(text: bytes, reception: Reception, rng: random.Random) -> bytes:
    """The received bytes, each frame's start late by chance."""
    out = bytearray()
    for piece in pieces(text, rng):
        wave = waveform(piece)
        end = BITS_PER_CHAR * len(piece)
        pos = 0
        while pos < end:
            frames = reception.frames(wave >> pos & reception.mask)
            byte, ahead = frames[0] if len(frames) == 1 else rng.choice(frames)
            out.append(byte)
            if ahead < 0:
                break
            pos += ahead
    return bytes(out)


Counts = dict[int, int]


def draw(ratio: float, texts: list[bytes], rng: random.Random) -> Counts:
    """How often each (class of the byte before, byte) is heard by one receiver drawn at random."""
    sample = rng.choice((0.44, 0.5, 0.5, 0.56, rng.uniform(0.38, 0.68)))
    receiver = Receiver(sample, rng.choice((1 / 16, 1 / 16, 1 / 8)))
    reception = Reception(1 / (ratio * (1 + rng.uniform(-0.02, 0.02))), receiver)
    counts: Counts = {}
    for text in texts:
        before = 0
        for byte in heard(text, reception, rng):
            key = rate.CLASS_OF[before] << 8 | byte
            counts[key] = counts.get(key, 0) + 1
            before = byte
    return counts


def table(draws: list[Counts], fast: bool) -> list[float]:
    """Nats per (class of the byte before, byte), smoothed towards the bytes' frequencies and a little towards any byte.

    `fast`: nearly random bytes, where pairs would only learn the text by heart.
    """
    joint = [0.0] * (rate.CLASSES * 256)
    for counts in draws:
        for key, n in counts.items():
            joint[key] += n
    total = sum(joint)
    noise = 0.1 if fast else 0.04
    base = [(1 - noise) * sum(joint[b::256]) / total + noise / 256 for b in range(256)]
    out: list[float] = []
    for c in range(rate.CLASSES):
        row = joint[256 * c : 256 * c + 256]
        seen = sum(row)
        strength = 1e9 if fast else 24.0
        out += [-math.log((n + strength * p) / (seen + strength)) for n, p in zip(row, base, strict=True)]
    return out


def regimes(ratio: float, texts: list[bytes], rng: random.Random) -> list[bytes]:
    """The tables of one ratio. Where samples fall near the sender's bit limits, a small clock error or another sample
    point makes other bytes of the same text: draws are clustered so that each table describes one such regime."""
    wanted = 1 if ratio < 0.2 else 3 if ratio < 0.75 else 4 if ratio < 4.5 else 2
    draws = [draw(ratio, texts, rng) for _ in range(7 * wanted)]
    groups = [draws[k::wanted] for k in range(wanted)]
    tables = [table(g, ratio > 4.9) for g in groups]
    for _ in range(8 if wanted > 1 else 0):
        groups = [[] for _ in tables]
        for counts in draws:
            costs = [sum(n * t[key] for key, n in counts.items()) for t in tables]
            groups[costs.index(min(costs))].append(counts)
        tables = [table(g, ratio > 4.9) for g in groups if g]
    return [bytes(min(rate.TOP, round(x / rate.NATS_PER_STEP)) for x in t) for t in tables]


def main() -> None:
    texts = logs(held_out=False)
    blobs = []
    for n in range(rate.TABLES):
        rng = random.Random(n)
        blobs.append(zlib.compress(b"".join(regimes(rate.ratio_of(n), texts, rng)), 9))
    out = bytearray(struct.pack("<4sHH", b"UART", rate.TABLES, rate.CLASSES))
    at = len(out) + 4 * (len(blobs) + 1)
    for blob in blobs:
        out += struct.pack("<I", at)
        at += len(blob)
    out += struct.pack("<I", at) + b"".join(blobs)
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "espmon/uart/ratios.bin"
    target.write_bytes(out)
    print(f"{target}: {len(out)} bytes, {len(blobs)} tables from {sum(map(len, texts))} bytes of text")


if __name__ == "__main__":
    main()
