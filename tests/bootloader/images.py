"""Images made for tests, by this file's own reading of the format."""

import functools
import hashlib
import operator
import random
import struct

SIZE_NIBBLE_8266 = {512: 0, 256: 1, 1024: 2, 2048: 3, 4096: 4}


def _close(body: bytes, segments: list[tuple[int, bytes]]) -> bytes:
    body += bytes(15 - len(body) % 16)
    return body + bytes([functools.reduce(operator.xor, b"".join(d for _, d in segments), 0xEF)])


def esp8266_image(segments: list[tuple[int, bytes]] | None = None, *, size_kb: int = 4096, mode: int = 2) -> bytes:
    segments = segments or [(0x40100000, bytes(range(256)) * 4)]
    body = struct.pack("<BBBBI", 0xE9, len(segments), mode, SIZE_NIBBLE_8266[size_kb] << 4, 0x40100004)
    for address, data in segments:
        body += struct.pack("<II", address, len(data)) + data
    return _close(body, segments)


def esp8266_v2_image() -> bytes:
    irom, ram = bytes(64), b"\x12" * 32
    body = struct.pack("<BBBBI", 0xEA, 4, 0, 0x40, 0x40100004) + struct.pack("<II", 0, len(irom)) + irom
    body += struct.pack("<BBBBI", 0xE9, 1, 0, 0x40, 0x40100004) + struct.pack("<II", 0x40100000, len(ram)) + ram
    return _close(body, [(0x40100000, ram)])


def esp32_image(chip_id: int, data: bytes | None = None, *, size_nibble: int = 2, hashed: bool = True) -> bytes:
    data = data if data is not None else bytes(range(256)) * 4
    body = struct.pack("<BBBBI", 0xE9, 1, 2, size_nibble << 4, 0x40080000)
    body += struct.pack("<BBBBHBHHIB", 0, 0, 0, 0, chip_id, 0, 0, 0xFFFF, 0, int(hashed))
    body += struct.pack("<II", 0x40080000, len(data)) + data
    body = _close(body, [(0, data)])
    return body + hashlib.sha256(body).digest() if hashed else body


def firmware(kib: int, seed: int = 1, *, ratio: float = 0.7) -> bytes:
    """Bytes that compress about like firmware (zlib to `ratio` of their size)."""
    rng = random.Random(seed)
    out = bytearray()
    while len(out) < kib * 1024:
        if rng.random() < ratio:
            out += rng.randbytes(64)
        else:
            out += bytes([rng.randrange(256)]) * 64
    return bytes(out[: kib * 1024])


def big_esp8266_image(kib: int, seed: int = 1) -> bytes:
    """One image of about `kib` KiB that the boot ROM would load whole: power cuts in it must show in its checksum."""
    return esp8266_image([(0x40100000, firmware(kib, seed))])


def big_esp32_image(chip_id: int, kib: int, seed: int = 1) -> bytes:
    return esp32_image(chip_id, firmware(kib, seed))
