"""Captures that were received at the right rate, or hold no text at all: nothing may be said about them."""

from __future__ import annotations

import base64
import bz2
import lzma
import math
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

CORPUS = Path(__file__).parents[1] / "corpus"

_RUSSIAN = (
    "Температура датчика: 22.5 градуса, влажность 48 %\r\nПодключение к сети «дом» выполнено успешно\r\n"
    "Ошибка чтения файла настроек, используются значения по умолчанию\r\nПерезагрузка через пять секунд...\r\n"
)
_CHINESE = (
    "温度传感器读数正常：二十二度五，湿度百分之四十八\r\n正在连接无线网络，请稍候……\r\n连接成功，地址已分配\r\n"
    "配置文件读取失败，使用默认设置\r\n系统将在五秒后重新启动，请不要断开电源\r\n"
)
_JAPANESE = (
    "温度センサーの値は正常です。湿度は四十八パーセントです。\r\nネットワークに接続しています。しばらくお待ちください。\r\n"
    "設定ファイルを読み込めませんでした。初期値を使用します。\r\nシステムを再起動します。\r\n"
)
_KOREAN = "온도 센서 값이 정상입니다. 습도는 사십팔 퍼센트입니다.\r\n네트워크에 연결하는 중입니다. 잠시 기다려 주십시오.\r\n"
_GREEK = "Η θερμοκρασία του αισθητήρα είναι φυσιολογική\r\nΣύνδεση με το δίκτυο, παρακαλώ περιμένετε\r\n"
_GERMAN = "Gerät gestartet, Fühler geöffnet: 21,5 °C – Übertragung läuft\r\nSchlüssel ungültig, größer als zulässig\r\n"
_ANSI = "".join(
    f"\x1b[0;{31 + n % 7}mI ({n * 37}) wifi: state {n}\x1b[0m\r\n\x1b[2K\x1b[1G\x1b[{n % 20}A\x1b[38;5;{n}m▓▒░\x1b[0m" for n in range(60)
)


def _crc(frame: bytes) -> bytes:
    return struct.pack("<H", zlib.crc32(frame) & 0xFFFF)


def records(rng: random.Random) -> bytes:
    """Records of a made-up kind: a mark, numbers that change slowly, fill, a checksum, again and again."""
    mark = rng.choice((b"\xaa\x55", b"\xc0", b"\x7e", b"\x02", b"\xff\xff", b"\xb5\x62", rng.randbytes(2), b""))
    fields = [(rng.randrange(7), rng.randrange(256), rng.uniform(-5, 50)) for _ in range(rng.randrange(1, 10))]
    tail, order = rng.choice((b"", b"\r\n", b"\xc0", b"\x7e", b"\x03")), rng.choice("<>")
    out = bytearray()
    size, count = rng.choice((150, 400, 800)), 0
    while len(out) < size:
        frame = bytearray()
        for kind, whole, real in fields:
            frame += (
                lambda w=whole: bytes((w,)),
                lambda w=whole, c=count: struct.pack(order + "H", 256 * w + c & 0xFFFF),
                lambda r=real: struct.pack(order + "h", int(r * 50 + rng.gauss(0, 20))),
                lambda r=real: struct.pack(order + "f", r + rng.gauss(0, 0.3)),
                lambda: bytes(rng.randrange(1, 6)),
                lambda w=whole, c=count: struct.pack(order + "I", 1000 * c + w),
                lambda w=whole: bytes((int(w / 2 + rng.gauss(0, 3)) & 255,)),
            )[kind]()
        out += mark + frame + _crc(frame) + tail
        count += 1
    return bytes(out)


def captures(seed: int = 1) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of each."""
    rng = random.Random(seed)
    logs = [p.read_bytes() for p in sorted(CORPUS.glob("*/log.txt"))]
    for n, log in enumerate(logs):
        yield f"log {n}", log
    for name, text, codecs in (
        ("russian", _RUSSIAN, ("utf-8", "cp1251", "koi8-r", "cp866", "utf-16-le")),
        ("chinese", _CHINESE, ("utf-8", "gbk", "big5", "utf-16-be")),
        ("japanese", _JAPANESE, ("utf-8", "shift_jis", "euc-jp")),
        ("korean", _KOREAN, ("utf-8", "euc-kr")),
        ("greek", _GREEK, ("utf-8", "iso8859-7", "cp1253")),
        ("german", _GERMAN, ("utf-8", "latin-1", "cp437")),
        ("ansi", _ANSI, ("utf-8", "cp437")),
    ):
        for codec in codecs:
            encoded = text.encode(codec, "replace")
            yield f"{name} {codec}", encoded
            yield f"{name} {codec} long", encoded * 8
            yield f"{name} {codec} in a log", logs[1][:300] + encoded + logs[2][:300]
    joined = b"".join(logs)
    yield "zlib", zlib.compress(joined)
    yield "zlib 100", zlib.compress(joined)[:100]
    yield "bz2", bz2.compress(joined)[:4000]
    yield "lzma", lzma.compress(joined)[:4000]
    yield "base64", base64.encodebytes(zlib.compress(joined))[:3000]
    for size in (30, 64, 200, 1000, 4000):
        yield f"noise {size}", rng.randbytes(size)
        yield f"noise in a log {size}", logs[3] + rng.randbytes(size) + logs[4]
        yield f"sparse noise {size}", bytes(rng.choice((0, 0xFF, 0x80, 0xFE, 0xF8, rng.randrange(256))) for _ in range(size))
        yield f"high noise {size}", bytes(rng.randrange(128, 256) for _ in range(size))
        yield f"few values {size}", bytes(rng.choice(b"\x00\x01\x80\xff\x7f") for _ in range(size))
    yield "zeros", bytes(20) + logs[5]
    yield "ones", b"\xff" * 500
    yield "counter", bytes(range(256)) * 4
    yield "ramp 16", b"".join(struct.pack("<H", 31 * n & 0xFFFF) for n in range(500))
    yield "sine u8", bytes(int(128 + 100 * math.sin(n / 9)) for n in range(1500))
    yield "sine i16", b"".join(struct.pack("<h", int(9000 * math.sin(n / 30))) for n in range(800))
    yield "floats", b"".join(struct.pack("<f", 20 + math.sin(n / 20) + rng.random() / 10) for n in range(300))
    yield "doubles", b"".join(struct.pack("<d", 20 + math.sin(n / 20)) for n in range(150))
    yield "records", b"".join(struct.pack("<BBHIhh", 0xAA, 0x55, n, 1700000000 + n, 220 + n % 9, -n) for n in range(120))
    frames = [struct.pack("<BBBB", 0xFE, 9, n & 0xFF, 1) + rng.randbytes(9) for n in range(100)]
    yield "mavlink-like", b"".join(f + _crc(f) for f in frames)
    modbus = [bytes((1, 3, 4)) + struct.pack(">HH", 2200 + n, 480) for n in range(100)]
    yield "modbus-like", b"".join(f + _crc(f) for f in modbus)
    nmea = b"".join(b"$GPGGA,1235%02d,4807.038,N,01131.000,E,1,08,0.9,545.4,M*47\r\n" % (n % 60) for n in range(20))
    ubx = b"".join(b"\xb5\x62\x01\x07\x10\x00" + rng.randbytes(16) for _ in range(20))
    yield "nmea and ubx", nmea + ubx + nmea
    slip = b"".join(b"\xc0" + rng.randbytes(40).replace(b"\xc0", b"\xdb\xdc") + b"\xc0" for _ in range(30))
    yield "slip", slip
    yield "esptool sync", b"\xc0\x00\x08\x24\x00\x00\x00\x00\x00\x07\x07\x12\x20" + b"\x55" * 32 + b"\xc0" + bytes((0xC0, 1, 8, 2, 0, 7, 7, 0x12, 0x20, 0, 0, 0xC0)) * 8
    yield "flash image", struct.pack("<BBBBI", 0xE9, 2, 2, 0x40, 0x40100004) + b"".join(
        struct.pack("<I", 0x40100000 + rng.randrange(1 << 16)) + bytes(rng.choice(b"\x12\xc1\xf0\x09\x01\x21\x0d\xf0\x00\x00") for _ in range(20)) for _ in range(60)
    )
    yield "jpeg-like", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + rng.randbytes(2000) + b"\xff\xd9"
    yield "bitmap", bytes(rng.choice((0, 0, 0, 0xFF, 0xFF, 0xF0, 0x0F, 0x3C)) for _ in range(1024))
    yield "tlv", b"".join(bytes((rng.randrange(1, 9), 4)) + struct.pack(">I", rng.randrange(1000)) for _ in range(150))
    yield "cbor-like", b"".join(b"\xa3\x61t\x18" + bytes((rng.randrange(20, 30),)) + b"\x61h\x18\x30\x61n\x19" + struct.pack(">H", n) for n in range(80))
    yield "msgpack-like", b"".join(b"\x83\xa1t\xcb" + struct.pack(">d", 21.5 + n / 10) + b"\xa1h\x2a\xa1n\xcd" + struct.pack(">H", n) for n in range(80))
    for n in range(12):
        cut = logs[n * 7 % len(logs)]
        glitch = rng.randbytes(rng.randrange(1, 24))
        yield f"glitch {n}", cut[:200] + glitch + cut[200:]
        dirty = bytearray(cut)
        for _ in range(len(dirty) // 40):
            dirty[rng.randrange(len(dirty))] = rng.randrange(256)
        yield f"dirty {n}", bytes(dirty)
    yield from _more(rng)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def _more(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """What else boards say at the right rate: other protocols, other spellings, long runs of one byte."""
    protobuf = b"".join(
        b"\x08" + _varint(1700000000 + 60 * n) + b"\x15" + struct.pack("<f", 21 + math.sin(n)) + b"\x1a\x06sensor\x20" + _varint(n * 37) for n in range(80)
    )
    yield "protobuf", protobuf
    yield "protobuf cobs", b"".join(bytes((len(protobuf[n : n + 20]) + 1,)) + protobuf[n : n + 20].replace(b"\0", b"\x01") + b"\0" for n in range(0, 1200, 20))
    rtu = []
    for n in range(100):
        rtu += [bytes((17, 3, 0, 0x6B, 0, 3)), bytes((17, 3, 6)) + struct.pack(">HHH", 680 + n, 0x1388, 100), bytes((17, 6, 0, 1, 0, n))]
    yield "modbus rtu", b"".join(f + _crc(f) for f in rtu)
    yield "modbus ascii", b"".join(b":" + f.hex().upper().encode() + b"\r\n" for f in rtu)
    for words, codec in (("温度", "utf-8"), ("温度", "gbk"), ("気温", "shift_jis"), ("температура", "utf-8"), ("температура", "koi8-r")):
        text = "".join(f'{{"{words}": {20 + n % 9}.{n % 10}, "状态" : "{words}"}}\r\n' for n in range(30))
        yield f"json {codec} {words}", text.encode(codec, "replace")
    nav = [b"\xb5\x62\x01\x07\x5c\x00" + struct.pack("<IHBBBB", 5000 * n, 2026, 11, 28, n % 24, n % 60) + struct.pack("<iiii", 85460000 + n, 472780000 - n, 4000, 3000) for n in range(40)]
    yield "ubx nav", b"".join(f + _crc(f) for f in nav)
    dump = rng.randbytes(512)
    yield "hex dump", b"".join(b"%08x  %s  |%s|\r\n" % (n, dump[n : n + 16].hex(" ").encode(), bytes(b if 32 <= b < 127 else 46 for b in dump[n : n + 16])) for n in range(0, 512, 16))
    yield "intel hex", b"".join(b":10%04X00%s%02X\r\n" % (n, dump[n : n + 16].hex().upper().encode(), n & 0xFF) for n in range(0, 512, 16))
    for byte in (0x00, 0xFF, 0x55, 0xAA, 0x80, 0xF0, 0xE0, 0xFE):
        yield f"{byte:02x} in text", b"ready and waiting for the next command\r\n" * 3 + bytes((byte,)) * 40 + b"ready and waiting for the next command\r\n"
        if byte:
            yield f"{byte:02x} only", bytes((byte,)) * 300
    yield "55 ff", b"\x55\xff" * 200
    blocks = [struct.pack("<BBHI", 0, 3, 1040, 0xEF) + struct.pack("<IIII", 1024, n, 0, 0) + rng.randbytes(1024) for n in range(3)]
    stub = [struct.pack("<BBHI", 1, 3, 2, 0) + b"\0\0" for _ in range(20)]
    for name, frames in (("esptool write", blocks), ("esptool replies", stub)):
        yield name, b"".join(b"\xc0" + f.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0" for f in frames)
    tone = [int(12000 * math.sin(n / 5) + 3000 * math.sin(n / 1.7) + rng.gauss(0, 400)) for n in range(1000)]
    yield "pcm s16", b"".join(struct.pack("<h", t) for t in tone)
    yield "pcm u8", bytes(128 + (t >> 8) for t in tone)
    yield "pcm mu-law", bytes((0x80 if t < 0 else 0) | min(127, int(16 * math.log1p(abs(t) / 64))) for t in tone)
    yield "dmx", b"".join(b"\0" + bytes(min(255, n * k % 256) for k in range(64)) for n in range(12))
    yield "sbus", b"".join(b"\x0f" + rng.randbytes(4) + b"\0" * 18 + b"\0\0" for _ in range(40))
    yield "crsf", b"".join(b"\xc8\x18\x16" + bytes((0xE0, 3, 0x1F, 0xF8, 0xC0, 7, 0x3E, 0xF0, 0x81, 0x0F, 0x7C)) * 2 + rng.randbytes(1) for _ in range(50))
    yield "lidar", b"".join(b"\x54\x2c" + struct.pack("<HH", 3600, n * 120) + b"".join(struct.pack("<HB", 400 + 9 * k, 200) for k in range(12)) + b"\x9a" for n in range(30))
    yield "telegram p1", b"".join(b"1-0:%d.7.0(%06.3f*kW)\r\n" % (n % 80, n / 7) for n in range(60))
    yield "menu in boxes", ("┌" + "─" * 30 + "┐\r\n" + "│ 1) Настройки   2) Выход      │\r\n" * 6 + "└" + "─" * 30 + "┘\r\n").encode() * 3
    yield "emoji", "✅ подключено 🌡 21.5° 💧 48% 🔋 3.9V\r\n".encode() * 20
    yield "progress", b"".join(b"\r[" + "█".encode() * n + b" " * (20 - n) + b"] %d%%" % (5 * n) for n in range(21)) * 3
    for n in range(12):
        yield f"records {n}", records(rng)
