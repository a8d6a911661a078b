"""What boards say, in styles that the detector's tables were not made of: one function per style makes the n-th line."""

from __future__ import annotations

import random
from collections.abc import Callable

_PLAIN = (
    b"[%d] temperature 22.%d C, humidity 48 %%\r\n", b"I (%d) wifi: station connected, rssi -6%d\r\n",
    b"loop %d free heap 3123%d\r\n", b"mqtt: published sensors/kitchen/%d ok%d\r\n",
)  # fmt: skip
_CHINESE = ("温度传感器读数正常", "正在连接无线网络，请稍候", "湿度百分之四十八", "配置文件读取失败，使用默认设置", "系统将在五秒后重新启动")
_RUSSIAN = ("Температура датчика", "Подключение к сети выполнено", "Ошибка чтения файла настроек", "Перезагрузка через")
_TAGS = ("wifi", "main_task", "httpd_txrx", "esp_netif_handlers", "phy_init", "nvs", "app_weather")


def plain(rng: random.Random, n: int) -> bytes:
    return rng.choice(_PLAIN) % (rng.randrange(10000), rng.randrange(10))


def json_lines(rng: random.Random, n: int) -> bytes:
    return b'{"id":%d,"t":%d.%d,"rh":%d,"ok":%s,"tag":"s%d"}\r\n' % (
        n, rng.randrange(15, 30), rng.randrange(10), rng.randrange(30, 90), rng.choice((b"true", b"false")), rng.randrange(9),
    )  # fmt: skip


def csv(rng: random.Random, n: int) -> bytes:
    return b",".join((b"%d" % (n * 20), *(b"%.3f" % rng.uniform(-9, 9) for _ in range(rng.choice((3, 6)))))) + b"\r\n"


def hex_dump(rng: random.Random, n: int) -> bytes:
    row = rng.randbytes(16)
    shown = bytes(b if 0x20 <= b < 0x7F else 0x2E for b in row)
    return b"%08x  %s  |%s|\r\n" % (n * 16, row.hex(" ").encode(), shown)


def chinese(rng: random.Random, n: int) -> bytes:
    return f"[{n:6d}] {rng.choice(_CHINESE)}：{rng.randrange(1000)}\r\n".encode()


def russian(rng: random.Random, n: int) -> bytes:
    return f"{n} {rng.choice(_RUSSIAN)}: {rng.randrange(1000)}\r\n".encode()


def idf_colours(rng: random.Random, n: int) -> bytes:
    level, colour = rng.choice((("I", 32), ("W", 33), ("E", 31)))
    return f"\x1b[0;{colour}m{level} ({n * 37}) {rng.choice(_TAGS)}: state {rng.randrange(12)} -> {rng.randrange(12)} (0x{rng.randrange(1 << 16):x})\x1b[0m\r\n".encode()


def at_dialogue(rng: random.Random, n: int) -> bytes:
    return rng.choice(
        (b"AT+CIPSTATUS\r\r\n", b"STATUS:%d\r\n" % rng.randrange(2, 6), b"OK\r\n", b"+IPD,0,%d:ping\r\n" % n, b"ERROR\r\n", b"AT+CWJAP?\r\r\n", b'+CWJAP:"home",-%d\r\n' % rng.randrange(40, 90))
    )


def nmea(rng: random.Random, n: int) -> bytes:
    body = b"GPGGA,%06d.00,4807.%03d,N,01131.%03d,E,1,08,0.9,545.%d,M,46.9,M,," % (n % 240000, rng.randrange(1000), rng.randrange(1000), rng.randrange(10))
    check = 0
    for byte in body:
        check ^= byte
    return b"$%s*%02X\r\n" % (body, check)


def short_lines(rng: random.Random, n: int) -> bytes:
    return b"%d\r\n" % rng.randrange(1024)


STYLES: dict[str, Callable[[random.Random, int], bytes]] = {
    "plain": plain, "json": json_lines, "csv": csv, "hex": hex_dump, "chinese": chinese, "russian": russian,
    "idf": idf_colours, "at": at_dialogue, "nmea": nmea, "numbers": short_lines,
}  # fmt: skip


def lines(style: str, rng: random.Random, seconds: float, per_second: float = 1000.0) -> list[bytes]:
    """Lines for about `seconds` at `per_second` bytes per second."""
    make = STYLES[style]
    out: list[bytes] = []
    size = 0
    while size < seconds * per_second:
        out.append(make(rng, len(out)))
        size += len(out[-1])
    return out
