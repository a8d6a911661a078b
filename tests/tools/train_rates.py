"""Makes ``espmon/uart/ratios.bin``: what text looks like at the wrong rate, per ratio of sender's and receiver's rate.

    python -m tests.tools.train_rates [output] [--only LOW HIGH]

Logs of ``tests/corpus`` (three of four; the fourth is held out for the measurements) are sent through the model of
`espmon.uart.wire` with receivers, clock errors and stalls drawn at random, and the received bytes are counted: each byte
given the class of the byte before it. Takes some minutes. The layout is described in `espmon/uart/rate.py`.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import random
import re
import struct
import zlib
from pathlib import Path

from espmon.uart import rate
from espmon.uart.wire import BITS_PER_CHAR, NOTHING, Receiver, Reception, waveform

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
            if byte != NOTHING:
                out.append(byte)
            if ahead < 0:
                break
            pos += ahead
    return bytes(out)


WORDS = [
    "boot", "start", "stop", "wifi", "mqtt", "temperature", "humidity", "pressure", "sensor", "relay", "channel", "connected",
    "disconnected", "failed", "error", "warning", "ok", "done", "retry", "timeout", "free", "heap", "stack", "task", "loop", "state",
    "value", "address", "read", "write", "flash", "sector", "update", "version", "build", "setup", "ready", "init", "config", "load",
    "save", "motor", "light", "level", "battery", "voltage", "current", "power", "signal", "client", "server", "request", "response",
    "status", "online", "offline", "enter", "leave", "send", "receive", "packet", "bytes", "time",
]  # fmt: skip


def chatter(rng: random.Random, size: int) -> bytes:
    """Text of applications in the manners that the corpus, which is about crashes, lacks: counters, readings, JSON, tables."""
    out = bytearray()
    word = lambda: rng.choice(WORDS)  # noqa: E731
    cased = lambda w: rng.choice((w, w, w.capitalize(), w.upper()))  # noqa: E731
    number = lambda: rng.choice((str(rng.randrange(10)), str(rng.randrange(1000)), f"{rng.uniform(-20, 120):.2f}", str(rng.randrange(1 << 20))))  # noqa: E731
    few = lambda: range(rng.randrange(1, 6))  # noqa: E731
    while len(out) < size:
        line = {
            0: lambda: " ".join(cased(word()) for _ in few()),
            1: lambda: rng.choice((", ", " ", "; ")).join(f"{cased(word())}{rng.choice(('=', ': ', ':', ' = '))}{number()}" for _ in few()),
            2: lambda: "{" + rng.choice((", ", ",")).join(f'"{word()}":{number()}' for _ in few()) + "}",
            3: lambda: rng.choice((",", ";", "\t", " ")).join(number() for _ in range(rng.randrange(2, 9))),
            4: lambda: f"[{number()}] {cased(word())}: {word()} {word()} {number()}",
            5: lambda: f"{rng.choice('EWID')} ({rng.randrange(99999)}) {word()}: {word()} {word()} {number()}",
            6: lambda: " ".join(f"{rng.randrange(256):02{rng.choice('xX')}}" for _ in range(rng.randrange(4, 17))),
            7: lambda: f"{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02} {word()}/{word()} {number()}",
            8: lambda: rng.choice(("OK", ".", "....", "> ", "---------", "AT+" + word().upper(), "ready", "")),
        }[rng.randrange(9)]
        for _ in range(rng.choice((1, 1, 2, 6))):
            out += line().encode() + rng.choice((b"\r\n", b"\r\n", b"\r\n", b"\n"))
    return bytes(out)


_CHINESE = (
    "启动", "完成", "错误", "警告", "电压", "电流", "设备", "网络", "断开", "重试", "超时", "内存", "不足", "任务", "队列", "更新",
    "固件", "版本", "按键", "灯光", "打开", "关闭", "电机", "门锁", "信号", "强度", "等待", "数据", "发送", "接收", "成功", "服务器",
    "端口", "密码", "写入", "校验", "时间", "光照", "气压", "剩余", "当前", "状态", "模式", "自动", "手动", "开始", "停止", "的", "了", "到",
    "センサー", "接続", "エラー", "開始", "データ", "です", "ました", "연결", "오류", "시작", "전압",
)
_CYRILLIC = (
    "запуск", "готово", "ошибка", "внимание", "напряжение", "ток", "устройство", "память", "очередь", "обновление", "версия", "кнопка",
    "свет", "включён", "выключен", "насос", "дверь", "сигнал", "ожидание", "данные", "отправка", "приём", "успешно", "сервер", "порт",
    "пароль", "запись", "время", "давление", "осталось", "режим", "стоп", "и", "на", "не", "от", "Θερμοκρασία", "έτοιμο", "größer",
)  # fmt: skip


def other(kind: int, rng: random.Random, size: int) -> bytes:
    """Text unlike English words: Chinese with its neighbours, Cyrillic with its, and figures (CSV, positions, dumps, commands)."""
    out = bytearray()
    figure = lambda: rng.choice((str(rng.randrange(10)), str(rng.randrange(100000)), f"{rng.uniform(-99, 99):.{rng.randrange(1, 6)}f}"))  # noqa: E731

    def words() -> str:
        said = _CHINESE if kind == 0 else _CYRILLIC
        gap = "" if kind == 0 else " "
        line = gap.join(rng.choice(said) for _ in range(rng.randrange(2, 8)))
        line = line.capitalize() if rng.random() < 0.5 else line
        ahead = rng.choice(("", f"[{rng.randrange(99999)}] ", f"{rng.randrange(999)} ", f"I ({rng.randrange(99999)}) {rng.choice(WORDS)}: "))
        behind = rng.choice(("", f": {figure()}", f"：{figure()}" if kind == 0 else f" = {figure()}", "。" if kind == 0 else "."))
        return ahead + line + behind

    def position() -> str:
        name = rng.choice(("GPRMC", "GNRMC", "GPGSV", "GPGSA", "GNVTG", "GPGLL", "GNGGA"))
        fields = ",".join(rng.choice(("", figure(), figure(), rng.choice("AVNSEWMTK"), f"{rng.randrange(240000):06}.00", f"{rng.uniform(0, 9999):09.4f}")) for _ in range(rng.randrange(5, 14)))
        return f"${name},{fields}*{rng.randrange(256):02X}"

    def dump() -> str:
        row = rng.randbytes(rng.choice((8, 16, 16))) if rng.random() < 0.6 else bytes(rng.choice((0, 255, rng.randrange(256))) for _ in range(16))
        shown = "".join(chr(b) if 0x20 <= b < 0x7F else "." for b in row)
        return f"{rng.choice(('', '0x'))}{rng.randrange(1 << 16):0{rng.choice((4, 8))}x}{rng.choice((': ', '  '))}{row.hex(' ')}{rng.choice(('', '  ' + shown))}"

    def command() -> str:
        name = rng.choice(("CSQ", "CREG", "CGATT", "CIPSTART", "CIPSEND", "CWMODE", "CIFSR", "GMR", "CMGF", "CWLAP"))
        return rng.choice((f"AT+{name}?\r", f"AT+{name}={rng.randrange(9)}\r", f"+{name}: {rng.randrange(32)},{rng.randrange(99)}", "OK", "OK", "ERROR", "SEND OK", "> ", "busy p..."))

    while len(out) < size:
        line = words
        if kind == 2:
            row = lambda: rng.choice((",", ",", ";", "\t", " ")).join(figure() for _ in range(rng.choice((1, 1, 3, 4, 7))))  # noqa: E731
            line = rng.choice((row, row, position, dump, command))
        for _ in range(rng.choice((1, 2, 6))):
            out += line().encode() + rng.choice((b"\r\n", b"\r\n", b"\n"))
    return bytes(out)


Counts = dict[int, int]
#: ratios at which other text than English has tables of its own: much slower senders are told without (each of their bits is
#: sampled twice and more; at half of our rate they would be taken for ones 8 % off), near our own rate such tables would
#: take text in other languages for garbage
_OTHERS = ((0.6, 0.72), (1.4, 4.9))
#: bytes of text per draw, and how much of it is from the corpus
_SAMPLE, _CORPUS_SHARE = 20_000, 0.7


def draw(ratio: float, texts: list[bytes], rng: random.Random, kind: int | None = None) -> Counts:
    """How often each (class of the byte before, byte) is heard by one receiver drawn at random, of `other` text of a `kind`
    or else of English."""
    sample = rng.choice((0.44, 0.5, 0.5, 0.56, rng.uniform(0.38, 0.68)))
    # a start bit that is checked matters where the sender's bit is shorter than half of the receiver's
    receiver = Receiver(sample, rng.choice((1 / 16, 1 / 16, 1 / 8)), checked=ratio > 1.4 and rng.random() < 0.4)
    texts = rng.sample(texts, len(texts)) if kind is None else [other(kind, rng, int(_SAMPLE * _CORPUS_SHARE))]
    while sum(map(len, texts)) > _CORPUS_SHARE * _SAMPLE:
        texts = [t[: len(t) * 3 // 4] if n == 0 else t for n, t in enumerate(texts[1:])]
    texts.append(chatter(rng, int(_SAMPLE * (1 - _CORPUS_SHARE))))
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
    wanted = 3 if ratio < 0.2 else 6 if ratio < 0.75 else 4 if ratio < 1.4 else 6 if ratio < 4.9 else 3
    # a slow sender's few different bytes hold all that is known: the rarest regime must not be missed
    draws = [draw(ratio, texts, rng) for _ in range((10 if ratio < 0.75 else 6) * wanted)]
    groups = [draws[k::wanted] for k in range(wanted)]
    if any(low < ratio < high for low, high in _OTHERS):
        for kind in range(3):
            groups.append([draw(ratio, texts, rng, kind) for _ in range(7)])
            draws += groups[-1]
    tables = [table(g, ratio > 4.9) for g in groups]
    for _ in range(8 if wanted > 1 else 0):
        groups = [[] for _ in tables]
        for counts in draws:
            costs = [sum(n * t[key] for key, n in counts.items()) for t in tables]
            groups[costs.index(min(costs))].append(counts)
        tables = [table(g, ratio > 4.9) for g in groups if g]
    return [bytes(_coarser(min(rate.TOP, round(x / rate.NATS_PER_STEP))) for x in t) for t in tables]


def _coarser(steps: int) -> int:
    """A cost in steps, what is rare rounded to fewer values: a fifth of the file's size for nothing that could be measured."""
    return min(rate.TOP, 5 * round(steps / 5)) if steps >= 35 else 2 * round(steps / 2) if steps >= 20 else steps


def blob(n: int) -> bytes:
    """Table number `n` as it stands in the file."""
    return zlib.compress(b"".join(regimes(rate.ratio_of(n), logs(held_out=False), random.Random(n))), 9)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", nargs="?", type=Path, default=ROOT / "espmon/uart/ratios.bin")
    parser.add_argument("--only", nargs=2, type=float, metavar=("LOW", "HIGH"), help="these ratios; the rest stays as it is")
    args = parser.parse_args()
    texts = logs(held_out=False)
    wanted = [n for n in range(rate.TABLES) if not args.only or args.only[0] <= rate.ratio_of(n) <= args.only[1]]
    with multiprocessing.Pool(2) as pool:
        made = dict(zip(wanted, pool.map(blob, wanted, chunksize=1), strict=True))
    blobs = [made.get(n) or rate.packed(n) for n in range(rate.TABLES)]
    out = bytearray(struct.pack("<4sHH", b"UART", rate.TABLES, rate.CLASSES))
    at = len(out) + 4 * (len(blobs) + 1)
    for packed in blobs:
        out += struct.pack("<I", at)
        at += len(packed)
    out += struct.pack("<I", at) + b"".join(blobs)
    args.output.write_bytes(out)
    print(f"{args.output}: {len(out)} bytes, {len(blobs)} tables from {sum(map(len, texts))} bytes of text")


if __name__ == "__main__":
    main()
