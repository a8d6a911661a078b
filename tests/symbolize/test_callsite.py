"""Which bytes are a call, on all three instruction sets; and where it goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espmon.symbolize.callsite import call_before, call_target

BASE = 0x40201000

# (name, architecture, bytes that end at the return address, is it a call)
CASES = [
    ("call0", "xtensa", "85ffff", True),
    ("call4", "xtensa", "95ffff", True),
    ("call8", "xtensa", "a5ffff", True),
    ("call12", "xtensa", "b5ffff", True),
    ("callx0 a0", "xtensa", "c00000", True),
    ("callx0 a3", "xtensa", "c00300", True),
    ("callx4 a3", "xtensa", "d00300", True),
    ("callx8 a8", "xtensa", "e00800", True),
    ("callx12 a12", "xtensa", "f00c00", True),
    ("ret", "xtensa", "800000", False),
    ("jx a0", "xtensa", "a00000", False),
    ("j", "xtensa", "06ffff", False),
    ("l32i", "xtensa", "022100", False),
    ("add", "xtensa", "c01080", False),
    ("nop; nop.n", "xtensa", "3df03df0", False),
    ("jal ra", "riscv", "ef00c000", True),
    ("jal t0", "riscv", "ef02c000", True),
    ("jal zero", "riscv", "6f00c000", False),
    ("jalr ra, a5", "riscv", "e7800700", True),
    ("jalr zero, ra", "riscv", "67800000", False),
    ("c.jal", "riscv", "0120", True),
    ("c.jalr a5", "riscv", "8297", True),
    ("c.jr ra (ret)", "riscv", "8280", False),
    ("c.ebreak", "riscv", "0290", False),
    ("addi", "riscv", "13050000", False),
]


def reader(code: bytes, base: int = BASE):  # type: ignore[no-untyped-def]
    def read(address: int, count: int) -> bytes:
        if not base <= address < base + len(code):
            return b""
        return code[address - base : address - base + count]

    return read


@pytest.mark.parametrize(("name", "arch", "code", "is_call"), CASES, ids=[case[0] for case in CASES])
def test_calls(name: str, arch: str, code: str, is_call: bool) -> None:
    body = bytes.fromhex(code)
    found = call_before(arch, reader(body), BASE + len(body))
    assert (found is not None) is is_call
    if found is not None:
        assert found == BASE + len(body) - (3 if arch == "xtensa" else len(body))


def test_targets() -> None:
    # call0 to the next aligned word: offset 0 goes to (pc & ~3) + 4
    assert call_target("xtensa", reader(bytes.fromhex("050000")), BASE) == BASE + 4
    assert call_target("xtensa", reader(bytes.fromhex("c5ffff")), BASE) == BASE
    assert call_target("xtensa", reader(bytes.fromhex("c00000")), BASE) is None
    assert call_target("riscv", reader(bytes.fromhex("ef00c000")), BASE) == BASE + 12
    assert call_target("riscv", reader(bytes.fromhex("eff0dfff")), BASE) == BASE - 4
    # auipc ra, 1; jalr ra, 16(ra)
    assert call_target("riscv", reader(bytes.fromhex("97100000e7800001")), BASE + 4) == BASE + 0x1000 + 16


@given(code=st.binary(max_size=12), at=st.integers(0, 14), arch=st.sampled_from(["xtensa", "riscv"]))
def test_any_bytes(code: bytes, at: int, arch: str) -> None:
    read = reader(code)
    call = call_before(arch, read, BASE + at)
    assert call is None or BASE + at - 4 <= call < BASE + at
    call_target(arch, read, BASE + at)
