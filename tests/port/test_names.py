"""Which board is which: by serial number, by socket, never by guess."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espmon.port import names
from espmon.port.names import ListedPort, PortIdentity, find, identify, looks_like_port, similar

CP, CH = (0x10C4, 0xEA60), (0x1A86, 0x7523)


def listed(device, ids=CP, serial=None, location=None):
    return ListedPort(device=device, vid=ids[0], pid=ids[1], serial_number=serial, location=location)


def test_a_board_is_found_under_another_name_by_its_serial_number():
    before = [listed("/dev/ttyUSB0", serial="A1", location="1-1"), listed("/dev/ttyUSB1", serial="B2", location="1-2")]
    mine = identify("/dev/ttyUSB0", before)
    after = [listed("/dev/ttyUSB1", serial="B2", location="1-2"), listed("/dev/ttyUSB2", serial="A1", location="1-3")]
    assert find(mine, after) == "/dev/ttyUSB2"
    assert find(mine, after[:1]) is None


@pytest.mark.parametrize("serial", [None, "", "0001", "0"])
def test_without_an_own_serial_number_the_socket_decides(serial):
    mine = identify("/dev/ttyUSB0", [listed("/dev/ttyUSB0", CH, serial, "1-1.2")])
    assert find(mine, [listed("/dev/ttyUSB1", CH, serial, "1-1.2"), listed("/dev/ttyUSB0", CH, serial, "1-1.3")]) == "/dev/ttyUSB1"
    assert find(mine, [listed("/dev/ttyUSB0", CH, serial, "1-1.3")]) is None
    assert find(mine, [listed("/dev/ttyUSB0", CP, serial, "1-1.2")]) is None


def test_two_that_match_are_no_guess():
    mine = PortIdentity(name="/dev/ttyUSB0", vid=CP[0], pid=CP[1], serial_number="A1", location="1-1")
    twins = [listed("/dev/ttyUSB0", serial="A1", location="1-2"), listed("/dev/ttyUSB1", serial="A1", location="1-3")]
    assert find(mine, twins) is None
    assert find(mine, [*twins, listed("/dev/ttyUSB2", serial="A1", location="1-1")]) == "/dev/ttyUSB2"


def test_an_adapter_with_several_ports_has_one_serial_number():
    ports = [listed(f"/dev/ttyUSB{n}", serial="FT4", location=f"1-1:1.{n}") for n in range(4)]
    mine = identify("/dev/ttyUSB2", ports)
    assert find(mine, ports) == "/dev/ttyUSB2"


def test_a_port_that_is_no_usb_device_is_its_name(tmp_path):
    node = tmp_path / "ttyS0"
    mine = identify(str(node), [])
    assert find(mine, []) is None
    node.touch()
    assert find(mine, []) == str(node)


def test_a_link_is_an_identity_by_itself(tmp_path):
    (tmp_path / "one").touch()
    link = tmp_path / "by-id"
    link.symlink_to(tmp_path / "one")
    assert identify(str(link), [listed(str(link))]).vid is None


def test_urls_are_their_names():
    assert find(identify("rfc2217://host:1", []), []) == "rfc2217://host:1"


def test_keys_are_stable_per_board():
    assert identify("a", [listed("a", serial="A1", location="1-1")]).key == identify("b", [listed("b", serial="A1")]).key
    assert identify("a", [listed("a", serial="0001", location="1-1")]).key == "usb:10c4:ea60:at:1-1"
    assert identify("a", []).key == "name:a"


def test_a_native_usb_port_states_its_mac():
    port = ListedPort(device="x", vid=0x303A, pid=0x1001, serial_number="7C:DF:A1:00:11:22")
    assert port.mac == "7c:df:a1:00:11:22"
    assert port.adapter == "ESP32 USB-Serial/JTAG"
    assert listed("x", serial="7C:DF:A1:00:11:22").mac is None


@pytest.mark.parametrize("word", ["COM3", "com12", "/dev/x", "ttyUSB0", "ttyACM1", "cu.usbserial-10", "rfc2217://h:1", r"\\.\COM10"])
def test_words_that_are_ports(word):
    assert looks_like_port(word)


@pytest.mark.parametrize("word", ["decode", "moniter", "common", "comm", "help"])
def test_words_that_are_not(word):
    assert not looks_like_port(word)


def test_similar_names():
    ports = [listed("/dev/ttyUSB0"), listed("/dev/ttyACM0"), listed("/dev/cu.usbserial-10")]
    assert similar("/dev/ttyUSB1", ports)[0] == "/dev/ttyUSB0"
    assert similar("ttyusb0", ports)[0] == "/dev/ttyUSB0"
    assert similar("xyz", ports) == []


def test_names_sort_as_people_count():
    assert sorted(["ttyUSB10", "ttyUSB9", "ttyUSB1"], key=names._natural) == ["ttyUSB1", "ttyUSB9", "ttyUSB10"]


@given(st.text(max_size=30))
def test_any_word_can_be_asked(word):
    looks_like_port(word.replace("\0", ""))
    names._natural(word)
