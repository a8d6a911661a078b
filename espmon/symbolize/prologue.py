"""How far the stack pointer has moved at an instruction, and where the return address is: read from the code.

Most of an ESP8266 firmware has no call frame information (vendor libraries, the Arduino core as PlatformIO builds it), so
this is the main way to unwind it; RISC-V uses it where an FDE is missing. A function is read once, from its start along its
branches (between them lie literals and padding, which must not be read as code), and the state at each instruction kept.

Instruction encodings: Xtensa ISA reference (core, density option), RISC-V unprivileged specification (RV32IC).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from espmon.symbolize.callsite import Reader, c_jump, call_target, signed

# No function that a person compiled is larger; bounds the work on a wrong symbol.
MAX_FUNCTION = 0x8000
# A frame larger than any task's stack is a misread.
_MAX_FRAME = 0x10000

_U16 = struct.Struct("<H").unpack_from
_U32 = struct.Struct("<I").unpack_from


@dataclass(frozen=True, slots=True)
class FrameRow:
    """The state before an instruction. `size`: bytes between the stack pointer and the caller's (the CFA).

    `return_at`: distance from the CFA (negative) to the saved return address; None: still in its register.
    `frame_register`: the CFA is this register plus `size` (RISC-V ``s0``), not the stack pointer; `frame_saved`: distance
    from the CFA to the caller's value of it.
    """

    size: int
    return_at: int | None
    frame_register: int | None = None
    frame_saved: int | None = None


# (bytes that the stack pointer was lowered by, saved return address, whether s0 is the CFA, saved s0); the two places as
# distances from the CFA
_State = tuple[int, int | None, bool, int | None]


class CodeWalk:
    """One function, followed along its branches.

    `calls`: return address -> target, of the calls whose target the code tells.
    """

    def __init__(self, arch: str, read: Reader, start: int, end: int) -> None:
        self.calls: dict[int, int] = {}
        self._states: dict[int, _State] = {}
        self._established: _State = (0, None, False, None)
        self._read = read
        end = min(end, start + MAX_FUNCTION)
        code = read(start, end - start)
        step = self._xtensa if arch == "xtensa" else self._riscv
        pending: list[tuple[int, _State, dict[int, int]]] = [(start, self._established, {})]
        while pending:
            at, state, constants = pending.pop()
            while start <= at < start + len(code) - 1 and at not in self._states:
                self._states[at] = state
                done = step(code, start, at, state, constants)
                if done is None:
                    break
                length, state, branch, on = done
                if branch is not None:
                    pending.append((branch, state, dict(constants)))
                if not on:
                    break
                at += length

    def row_at(self, address: int) -> FrameRow | None:
        """The state before the instruction at `address`; None when no path of branches leads there (a jump table?)."""
        state = self._states.get(address)
        return None if state is None else _row(state)

    @property
    def frame(self) -> FrameRow:
        """The frame that the function sets up, as it is at its calls."""
        return _row(self._established)

    def _settled(self, size: int, saved: int | None, framed: bool, frame_saved: int | None) -> _State | None:
        """The state after an instruction, with what lies below the stack pointer given up; None for nonsense."""
        if not 0 <= size <= _MAX_FRAME:
            return None
        if saved is not None and -saved > size:
            saved = None
        if frame_saved is not None and -frame_saved > size:
            frame_saved = None
        state = (size, saved, framed and size > 0, frame_saved)
        best = self._established
        if size > best[0] or (size == best[0] and (saved is not None, framed) >= (best[1] is not None, best[2])):
            self._established = state
        return state

    def _xtensa(self, code: bytes, start: int, at: int, state: _State, constants: dict[int, int]) -> tuple[int, _State, int | None, bool] | None:
        """One instruction: (its length, the state after it, where it can branch to, whether the next one follows)."""
        i = at - start
        b0 = code[i]
        b1 = code[i + 1]
        op0 = b0 & 15
        t = b0 >> 4
        s = b1 & 15
        r = b1 >> 4
        size, saved, _, _ = state
        branch: int | None = None
        on = True
        length = 2
        if op0 >= 8:
            if op0 == 9 and t == 0 and s == 1:  # s32i.n a0, a1
                saved = r * 4 - size
            elif op0 == 8:  # l32i.n
                constants.pop(t, None)
            elif op0 == 11:  # addi.n
                if r == 1 and s == 1:
                    size -= t or -1
                constants.pop(r, None)
            elif op0 == 10:  # add.n
                if r == 1 and s == 1 and t in constants:
                    size -= signed(constants[t], 32)
                constants.pop(r, None)
            elif op0 == 12 and t < 8:  # movi.n
                value = (t & 7) << 4 | r
                constants[s] = (value - 128 if value >= 96 else value) & 0xFFFFFFFF
            elif op0 == 12:  # beqz.n, bnez.n
                branch = at + 4 + ((t & 3) << 4 | r)
            elif op0 == 13 and r == 0:  # mov.n
                constants.pop(t, None)
            elif op0 == 13 and r == 15 and t == 0:  # ret.n
                on = False
        else:
            if i + 3 > len(code):
                return None
            length = 3
            b2 = code[i + 2]
            if op0 == 2:
                if r == 12 and t == 1 and s == 1:  # addi a1, a1
                    size -= signed(b2, 8)
                elif r == 13 and t == 1 and s == 1:  # addmi a1, a1
                    size -= signed(b2, 8) << 8
                elif r == 6 and t == 0 and s == 1:  # s32i a0, a1
                    saved = b2 * 4 - size
                if r == 10:  # movi
                    constants[t] = signed(s << 8 | b2, 12) & 0xFFFFFFFF
                elif r not in (4, 5, 6):
                    constants.pop(t, None)
            elif op0 == 1:  # l32r
                word = self._read((((at + 3) & ~3) + ((b1 << 2 | b2 << 10) - 0x40000)) & 0xFFFFFFFF, 4)
                constants.pop(t, None)
                if len(word) == 4:
                    constants[t] = _U32(word, 0)[0]
            elif op0 == 5 or (op0 == 0 and b0 & 0xCF == 0xC0 and r == 0 and b2 == 0):  # call, callx
                target = call_target("xtensa", self._read, at) if op0 == 5 else constants.get(s)
                if target is not None:
                    self.calls[at + 3] = target
                constants.clear()
            elif op0 == 0:
                if (b0 == 0x80 and b1 == 0 and b2 == 0) or (b0 == 0xA0 and r == 0 and b2 == 0):  # ret, jx
                    on = False
                elif b2 in (0x80, 0xC0) and r == 1 and s == 1 and t in constants:  # add, sub a1, a1
                    value = signed(constants[t], 32)
                    size += value if b2 == 0xC0 else -value
                constants.pop(r, None)
            elif op0 == 6:
                n = t & 3
                if n == 0:  # j
                    branch = at + 4 + signed((b0 | b1 << 8 | b2 << 16) >> 6, 18)
                    on = False
                elif n == 1:
                    branch = at + 4 + signed(b1 >> 4 | b2 << 4, 12)
                elif t != 3:  # not entry
                    branch = at + 4 + signed(b2, 8)
            elif op0 == 7:  # compare and branch
                branch = at + 4 + signed(b2, 8)
        after = self._settled(size, saved, False, None)
        return None if after is None else (length, after, branch, on)

    def _riscv(self, code: bytes, start: int, at: int, state: _State, constants: dict[int, int]) -> tuple[int, _State, int | None, bool] | None:
        i = at - start
        half = _U16(code, i)[0]
        size, saved, framed, frame_saved = state
        branch: int | None = None
        on = True
        length = 2
        rd = half >> 7 & 31
        if half & 3 != 3:
            if half & 0xEF83 == 0x6101:  # c.addi16sp
                size -= signed((half >> 12 & 1) << 9 | (half >> 3 & 3) << 7 | (half >> 5 & 1) << 6 | (half >> 2 & 1) << 5 | (half >> 6 & 1) << 4, 10)
            elif half & 0xEF83 == 0x0101:  # c.addi sp
                size -= signed((half >> 12 & 1) << 5 | half >> 2 & 31, 6)
            elif half & 0xE003 == 0xC002:  # c.swsp
                offset = (half >> 7 & 3) << 6 | (half >> 9 & 15) << 2
                if half >> 2 & 31 == 1:
                    saved = offset - size
                elif half >> 2 & 31 == 8:
                    frame_saved = offset - size
            elif half & 0xE003 == 0x4002 and rd == 8:  # c.lwsp s0
                framed = False
            elif half & 0xE003 == 0 and half >> 2 & 7 == 0 and half & 0x1FE0:  # c.addi4spn s0
                framed = framed or (half >> 7 & 15) << 6 | (half >> 11 & 3) << 4 | (half >> 5 & 1) << 3 | (half >> 6 & 1) << 2 == size
            elif half & 0xE003 == 0x6001:  # c.lui
                constants[rd] = signed((half >> 12 & 1) << 17 | (half >> 2 & 31) << 12, 18)
            elif half & 0xE003 == 0x4001:  # c.li
                constants[rd] = signed((half >> 12 & 1) << 5 | half >> 2 & 31, 6)
            elif half & 0xE003 == 0x0001 and rd in constants:  # c.addi
                constants[rd] += signed((half >> 12 & 1) << 5 | half >> 2 & 31, 6)
            elif half & 0xF003 == 0x9002 and rd == 2 and half >> 2 & 31 in constants:  # c.add sp
                size -= constants[half >> 2 & 31]
            elif half & 0xE003 == 0xA001:  # c.j
                branch = at + c_jump(half)
                on = False
            elif half & 0xE003 == 0x2001 or (half & 0xF07F == 0x9002 and rd):  # c.jal, c.jalr
                target = call_target("riscv", self._read, at)
                if target is not None:
                    self.calls[at + 2] = target
                constants.clear()
            elif half & 0xF07F == 0x8002 and rd:  # c.jr, ret
                on = False
            elif half & 0xC003 == 0xC001:  # c.beqz, c.bnez
                branch = at + signed((half >> 12 & 1) << 8 | (half >> 5 & 3) << 6 | (half >> 2 & 1) << 5 | (half >> 10 & 3) << 3 | (half >> 3 & 3) << 1, 9)
        else:
            if i + 4 > len(code):
                return None
            length = 4
            word = _U32(code, i)[0]
            opcode = word & 0x7F
            rs1 = word >> 15 & 31
            rs2 = word >> 20 & 31
            imm = signed(word >> 20, 12)
            if word & 0x707F == 0x13:  # addi
                if rd == 2 and rs1 == 2:
                    size -= imm
                elif rd == 8 and rs1 == 2:
                    framed = framed or imm == size
                elif rs1 == 0:
                    constants[rd] = imm
                elif rs1 == rd and rd in constants:
                    constants[rd] += imm
                else:
                    constants.pop(rd, None)
            elif opcode == 0x37:  # lui
                constants[rd] = signed(word & 0xFFFFF000, 32)
            elif word & 0xFE00707F == 0x33 and rd == 2 and 2 in (rs1, rs2):  # add sp, sp
                size -= constants.get(rs2 if rs1 == 2 else rs1, 0)
            elif word & 0x707F == 0x2023 and rs1 == 2:  # sw to the stack
                offset = signed((word >> 25) << 5 | rd, 12)
                if rs2 == 1:
                    saved = offset - size
                elif rs2 == 8:
                    frame_saved = offset - size
            elif word & 0x707F == 0x2003 and rs1 == 2 and rd == 8:  # lw s0
                framed = False
            elif opcode == 0x63:
                branch = at + signed((word >> 31) << 12 | (word >> 7 & 1) << 11 | (word >> 25 & 63) << 5 | (word >> 8 & 15) << 1, 13)
            elif opcode in (0x6F, 0x67) and rd in (1, 5):  # jal, jalr with a link
                target = call_target("riscv", self._read, at)
                if target is not None:
                    self.calls[at + 4] = target
                constants.clear()
            elif opcode == 0x6F and rd == 0:  # j
                branch = at + signed((word >> 31) << 20 | (word >> 12 & 0xFF) << 12 | (word >> 20 & 1) << 11 | (word >> 21 & 0x3FF) << 1, 21)
                on = False
            elif opcode == 0x67:  # jr
                on = False
        after = self._settled(size, saved, framed, frame_saved)
        return None if after is None else (length, after, branch, on)


def _row(state: _State) -> FrameRow:
    size, saved, framed, frame_saved = state
    # with a frame pointer the CFA is s0 itself
    return FrameRow(0, saved, 8, frame_saved) if framed else FrameRow(size, saved, None, frame_saved)
