"""Image headers: every kind, every kind of damage, arbitrary bytes."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espmon import chips
from espmon.bootloader import image
from tests.bootloader import images


def test_esp8266_first_and_second_form() -> None:
    first = image.identify(images.esp8266_image(), chips.ESP8266)
    assert (first.chip, first.mode, first.flash_size, first.fault) == ("esp8266", "dio", 4 << 20, None)
    second = image.identify(images.esp8266_v2_image(), chips.ESP8266)
    assert (second.magic, second.fault, len(second.segments)) == (0xEA, None, 2)


@pytest.mark.parametrize("chip", [c for c in chips.CHIPS.values() if c.image_chip_id is not None])
def test_every_later_chip_is_named(chip: chips.Chip) -> None:
    assert chip.image_chip_id is not None
    found = image.identify(images.esp32_image(chip.image_chip_id), chips.ESP8266)
    assert (found.chip, found.fault, found.digest_ok) == (chip.name, None, True)


def test_damage_is_told() -> None:
    good = images.esp32_image(5)
    assert image.parse(good, esp8266=False).end == len(good)
    bad = bytearray(good)
    bad[100] ^= 1
    assert image.parse(bytes(bad), esp8266=False).fault == "its checksum is wrong"
    bad = bytearray(good)
    bad[13] ^= 1  # in the header: only the digest notices
    assert image.parse(bytes(bad), esp8266=False).fault == "its SHA-256 is wrong"
    with pytest.raises(image.ImageFault, match="cut off"):
        image.parse(good[:500], esp8266=False)
    with pytest.raises(image.ImageFault, match="SHA-256"):
        image.parse(good[:-1], esp8266=False)


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes(content: bytes, esp8266: bool) -> None:
    for data in (content, b"\xe9" + content, b"\xea\x04" + content):
        try:
            image.parse(data, esp8266=esp8266)
            image.identify(data)
        except image.ImageFault:
            pass


def test_inner_application_of_an_arduino_image() -> None:
    eboot = images.esp8266_image([(0x4010F000, b"\x11" * 512)])
    app = images.esp8266_image([(0x40201010, b"\x22" * 9000), (0x40100000, b"\x33" * 64)])
    whole = eboot.ljust(0x1000, b"\xff") + app
    inner = image.inner_application(whole)
    assert inner is not None
    assert inner.fault is None
    with pytest.raises(image.ImageFault):
        image.inner_application(whole[:-700])
    assert image.inner_application(eboot) is None


def test_mode_change_keeps_the_digest_right() -> None:
    changed = image.set_flash_mode(images.esp32_image(0), "dout")
    assert image.identify(changed).mode == "dout"
    assert changed[-32:] == hashlib.sha256(changed[:-32]).digest()
