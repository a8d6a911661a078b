"""Just enough of two processors to run the ELF fixtures, one instruction at a time, with the true call stack beside it.

What an unwinder must find is then known exactly, at any instruction: `calls` holds the return addresses that are open,
innermost last. Instruction semantics from the RISC-V unprivileged specification (RV32IMC) and the Xtensa ISA reference
(call0 ABI, density, loops left out: the lx106 has none). Anything unknown raises, so that a gap here is seen.
"""

from __future__ import annotations

from pathlib import Path

from espmon.symbolize.elf import ElfFile

M32 = 0xFFFFFFFF


def signed(value: int, bits: int = 32) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


class Memory:
    """Sections of an ELF, and RAM wherever something else is written."""

    def __init__(self, elf: ElfFile) -> None:
        self.bytes: dict[int, int] = {}
        for section in elf.sections:
            if section.flags & 2 and section.stored:
                body = elf.raw(section)
                self.bytes.update(zip(range(section.address, section.address + len(body)), body, strict=True))

    def load(self, at: int, size: int) -> int:
        get = self.bytes.get
        return sum(get((at + i) & M32, 0) << 8 * i for i in range(size))

    def store(self, at: int, size: int, value: int) -> None:
        for i in range(size):
            self.bytes[(at + i) & M32] = value >> 8 * i & 255


class Machine:
    """What both have in common: registers, memory, the true call stack."""

    def __init__(self, path: Path) -> None:
        self.elf = ElfFile.open(path)
        self.memory = Memory(self.elf)
        self.pc = self.elf.entry
        self.registers = [0] * 32
        self.calls: list[int] = []
        self.stack_top = 0

    def step(self) -> None:
        raise NotImplementedError

    def words(self, sp: int) -> dict[int, int]:
        """The stack from `sp` up, as a dump prints it."""
        return {at: self.memory.load(at, 4) for at in range(sp, self.stack_top, 4)}

    def jumped(self, target: int, link: bool, back: int) -> None:
        """Keeps the true call stack: a link is a call, a jump to the innermost return address is a return."""
        if link:
            self.calls.append(back)
        elif self.calls and target == self.calls[-1]:
            self.calls.pop()
        self.pc = target


class Riscv(Machine):
    """RV32IMC."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.stack_top = 0x3FCC0000

    def set(self, rd: int, value: int) -> None:
        if rd:
            self.registers[rd] = value & M32

    def step(self) -> None:
        word = self.memory.load(self.pc, 4)
        if word & 3 != 3:
            self._compressed(word & 0xFFFF)
        else:
            self._full(word)

    def _full(self, w: int) -> None:
        x, pc, memory = self.registers, self.pc, self.memory
        op, rd, f3, rs1, rs2, f7 = w & 127, w >> 7 & 31, w >> 12 & 7, w >> 15 & 31, w >> 20 & 31, w >> 25
        imm = signed(w >> 20, 12)
        following = pc + 4
        if op == 0x37:
            self.set(rd, w & 0xFFFFF000)
        elif op == 0x17:
            self.set(rd, pc + (w & 0xFFFFF000))
        elif op == 0x6F:
            offset = signed((w >> 31) << 20 | (w >> 12 & 255) << 12 | (w >> 20 & 1) << 11 | (w >> 21 & 1023) << 1, 21)
            self.set(rd, following)
            self.jumped((pc + offset) & M32, rd == 1, following)
            return
        elif op == 0x67:
            target = (x[rs1] + imm) & M32 & ~1
            self.set(rd, following)
            self.jumped(target, rd == 1, following)
            return
        elif op == 0x63:
            offset = signed((w >> 31) << 12 | (w >> 7 & 1) << 11 | (w >> 25 & 63) << 5 | (w >> 8 & 15) << 1, 13)
            a, b = x[rs1], x[rs2]
            taken = {0: a == b, 1: a != b, 4: signed(a) < signed(b), 5: signed(a) >= signed(b), 6: a < b, 7: a >= b}[f3]
            self.pc = (pc + offset) & M32 if taken else following
            return
        elif op == 0x03:
            at = x[rs1] + imm
            size = (1, 2, 4, 0, 1, 2)[f3]
            value = memory.load(at, size)
            self.set(rd, signed(value, 8 * size) if f3 < 3 else value)
        elif op == 0x23:
            memory.store(x[rs1] + signed(f7 << 5 | rd, 12), (1, 2, 4)[f3], x[rs2])
        elif op == 0x13:
            a = x[rs1]
            shift = imm & 31
            self.set(rd, (a + imm, a << shift, int(signed(a) < imm), int(a < imm & M32), a ^ imm, signed(a) >> shift if f7 & 32 else a >> shift, a | imm, a & imm)[f3])
        elif op == 0x33 and f7 == 1:
            a, b = x[rs1], x[rs2]
            sa, sb = signed(a), signed(b)
            if f3 == 0:
                self.set(rd, a * b)
            elif f3 < 4:
                self.set(rd, {1: sa * sb, 2: sa * b, 3: a * b}[f3] >> 32)
            elif f3 == 5:
                self.set(rd, a // b if b else M32)
            elif f3 == 7:
                self.set(rd, a % b if b else a)
            elif f3 == 4:
                self.set(rd, (abs(sa) // abs(sb) * (1 if (sa < 0) == (sb < 0) else -1)) if b else M32)
            else:
                self.set(rd, (abs(sa) % abs(sb) * (-1 if sa < 0 else 1)) if b else a)
        elif op == 0x33:
            a, b = x[rs1], x[rs2]
            shift = b & 31
            self.set(rd, (a - b if f7 else a + b, a << shift, int(signed(a) < signed(b)), int(a < b), a ^ b, signed(a) >> shift if f7 else a >> shift, a | b, a & b)[f3])
        else:
            raise NotImplementedError(f"{w:#010x} at {pc:#x}")
        self.pc = following

    def _compressed(self, h: int) -> None:
        """Expands to the full instruction of the same meaning and runs that, two bytes long."""
        x, pc = self.registers, self.pc
        q, f3 = h & 3, h >> 13
        rd, low, high = h >> 7 & 31, 8 + (h >> 2 & 7), 8 + (h >> 7 & 7)
        imm6 = signed((h >> 12 & 1) << 5 | h >> 2 & 31, 6)
        self.pc = pc + 2
        if q == 0 and f3 == 0 and h:
            self.set(low, x[2] + ((h >> 7 & 15) << 6 | (h >> 11 & 3) << 4 | (h >> 5 & 1) << 3 | (h >> 6 & 1) << 2))
        elif q == 0 and f3 in (2, 6):
            at = x[high] + ((h >> 5 & 1) << 6 | (h >> 10 & 7) << 3 | (h >> 6 & 1) << 2)
            if f3 == 2:
                self.set(low, self.memory.load(at, 4))
            else:
                self.memory.store(at, 4, x[low])
        elif q == 1 and f3 == 0:
            self.set(rd, x[rd] + imm6)
        elif q == 1 and f3 in (1, 5):
            offset = signed((h >> 12 & 1) << 11 | (h >> 11 & 1) << 4 | (h >> 9 & 3) << 8 | (h >> 8 & 1) << 10 | (h >> 7 & 1) << 6 | (h >> 6 & 1) << 7 | (h >> 3 & 7) << 1 | (h >> 2 & 1) << 5, 12)
            if f3 == 1:
                self.set(1, pc + 2)
            self.jumped((pc + offset) & M32, f3 == 1, pc + 2)
        elif q == 1 and f3 == 2:
            self.set(rd, imm6)
        elif q == 1 and f3 == 3 and rd == 2:
            self.set(2, x[2] + signed((h >> 12 & 1) << 9 | (h >> 3 & 3) << 7 | (h >> 5 & 1) << 6 | (h >> 2 & 1) << 5 | (h >> 6 & 1) << 4, 10))
        elif q == 1 and f3 == 3:
            self.set(rd, imm6 << 12)
        elif q == 1 and f3 == 4:
            kind = h >> 10 & 3
            shift = h >> 2 & 31
            a, b = x[high], x[low]
            self.set(high, (a >> shift, signed(a) >> shift, a & imm6, (a - b, a ^ b, a | b, a & b)[h >> 5 & 3])[kind])
        elif q == 1:
            offset = signed((h >> 12 & 1) << 8 | (h >> 5 & 3) << 6 | (h >> 2 & 1) << 5 | (h >> 10 & 3) << 3 | (h >> 3 & 3) << 1, 9)
            if (x[high] == 0) == (f3 == 6):
                self.pc = (pc + offset) & M32
        elif q == 2 and f3 == 0:
            self.set(rd, x[rd] << (h >> 2 & 31))
        elif q == 2 and f3 == 2:
            self.set(rd, self.memory.load(x[2] + ((h >> 2 & 3) << 6 | (h >> 12 & 1) << 5 | (h >> 4 & 7) << 2), 4))
        elif q == 2 and f3 == 6:
            self.memory.store(x[2] + ((h >> 7 & 3) << 6 | (h >> 9 & 15) << 2), 4, x[h >> 2 & 31])
        elif q == 2 and f3 == 4 and h >> 2 & 31:
            self.set(rd, (x[rd] if h >> 12 & 1 else 0) + x[h >> 2 & 31])
        elif q == 2 and f3 == 4 and rd:
            target = x[rd]
            if h >> 12 & 1:
                self.set(1, pc + 2)
            self.jumped(target, bool(h >> 12 & 1), pc + 2)
        else:
            raise NotImplementedError(f"{h:#06x} at {pc:#x}")


class Lx106(Machine):
    """Xtensa, call0 ABI. The ROM's division routines, which the fixtures link to, run natively."""

    DIVIDE, REMAINDER = 0x4000E21C, 0x4000E268

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.stack_top = 0x3FFFFFC0
        self.sar = 0

    def step(self) -> None:
        a, pc, memory = self.registers, self.pc, self.memory
        if pc in (self.DIVIDE, self.REMAINDER):
            a[2] = a[2] // a[3] if pc == self.DIVIDE else a[2] % a[3]
            self.jumped(a[0], False, 0)
            return
        w = memory.load(pc, 3)
        op, t, s, r, imm8 = w & 15, w >> 4 & 15, w >> 8 & 15, w >> 12 & 15, w >> 16
        self.pc = pc + (2 if op >= 8 else 3)
        if op == 8:
            a[t] = memory.load(a[s] + 4 * r, 4)
        elif op == 9:
            memory.store(a[s] + 4 * r, 4, a[t])
        elif op == 10:
            a[r] = (a[s] + a[t]) & M32
        elif op == 11:
            a[r] = (a[s] + (t or -1)) & M32
        elif op == 12 and t < 8:
            value = (t & 7) << 4 | r
            a[s] = (value - 128 if value >= 96 else value) & M32
        elif op == 12:
            if (a[s] == 0) == (t < 12):
                self.pc = pc + 4 + ((t & 3) << 4 | r)
        elif op == 13 and r == 0:
            a[t] = a[s]
        elif op == 13 and r == 15 and t == 0:
            self.jumped(a[0], False, 0)
        elif op == 13 and r == 15 and t == 3:
            pass  # nop.n
        elif op == 1:
            a[t] = memory.load((((pc + 3) & ~3) + ((w >> 8) << 2) - 0x40000) & M32, 4)
        elif op == 2:
            at = a[s] + imm8 * {0: 1, 4: 1, 1: 2, 9: 2, 5: 2, 2: 4, 6: 4}.get(r, 0)
            if r in (0, 1, 2):
                a[t] = memory.load(at, (1, 2, 4)[r])
            elif r == 9:
                a[t] = signed(memory.load(at, 2), 16) & M32
            elif r in (4, 5, 6):
                memory.store(at, (1, 2, 4)[r - 4], a[t])
            elif r == 10:
                a[t] = signed(s << 8 | imm8, 12) & M32
            elif r == 12:
                a[t] = (a[s] + signed(imm8, 8)) & M32
            elif r == 13:
                a[t] = (a[s] + (signed(imm8, 8) << 8)) & M32
            else:
                raise NotImplementedError(f"{w:#08x} at {pc:#x}")
        elif op == 5:
            if t & 3:
                raise NotImplementedError("windowed call")
            a[0] = pc + 3
            self.jumped(((pc & ~3) + (signed(w >> 6, 18) << 2) + 4) & M32, True, pc + 3)
        elif op == 6:
            self._branch6(w, t, s, r, imm8, pc)
        elif op == 7:
            self._branch7(t, s, r, imm8, pc)
        elif op == 0:
            self._rrr(w, t, s, r, w >> 16 & 15, w >> 20, pc)
        else:
            raise NotImplementedError(f"{w:#08x} at {pc:#x}")

    def _branch6(self, w: int, t: int, s: int, r: int, imm8: int, pc: int) -> None:
        a = self.registers
        n, m = t & 3, t >> 2
        value = a[s]
        if n == 0:
            self.jumped((pc + 4 + signed(w >> 6, 18)) & M32, False, 0)
            return
        constants = (-1, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32, 64, 128, 256)
        unsigned = (32768, 65536, *constants[2:])
        if n == 1:
            taken = (value == 0, value != 0, signed(value) < 0, signed(value) >= 0)[m]
            offset = signed(w >> 12, 12)
        elif n == 2:
            b = constants[r] & M32
            taken = (value == b, value != b, signed(value) < signed(b), signed(value) >= signed(b))[m]
            offset = signed(imm8, 8)
        elif m in (2, 3):
            taken = value < unsigned[r] if m == 2 else value >= unsigned[r]
            offset = signed(imm8, 8)
        else:
            raise NotImplementedError(f"{w:#08x} at {pc:#x}")
        if taken:
            self.pc = pc + 4 + offset

    def _branch7(self, t: int, s: int, r: int, imm8: int, pc: int) -> None:
        a, b = self.registers[s], self.registers[t]
        bit = (r & 1) << 4 | t
        taken = {
            0: a & b == 0, 1: a == b, 2: signed(a) < signed(b), 3: a < b, 4: a & b == b, 5: not a >> (b & 31) & 1,
            6: not a >> bit & 1, 7: not a >> bit & 1, 8: a & b != 0, 9: a != b, 10: signed(a) >= signed(b), 11: a >= b,
            12: a & b != b, 13: bool(a >> (b & 31) & 1), 14: bool(a >> bit & 1), 15: bool(a >> bit & 1),
        }[r]  # fmt: skip
        if taken:
            self.pc = pc + 4 + signed(imm8, 8)

    def _rrr(self, w: int, t: int, s: int, r: int, op1: int, op2: int, pc: int) -> None:
        a = self.registers
        if op1 == 0 and op2 == 0 and r == 0:
            m, n = t >> 2, t & 3
            if m == 2:  # ret, jx
                self.jumped(a[0] if n == 0 else a[s], False, 0)
            elif m == 3 and n == 0:  # callx0
                target = a[s]
                a[0] = pc + 3
                self.jumped(target, True, pc + 3)
            else:
                raise NotImplementedError(f"{w:#08x} at {pc:#x}")
        elif op1 == 0 and op2 == 0 and r == 2:
            pass  # memw, isync and the like
        elif op1 == 0 and op2 in (1, 2, 3):
            a[r] = (a[s] & a[t], a[s] | a[t], a[s] ^ a[t])[op2 - 1]
        elif op1 == 0 and op2 == 4:
            if r == 0:
                self.sar = a[s] & 31
            elif r == 1:
                self.sar = 32 - (a[s] & 31)
            elif r == 4:
                self.sar = s | (t & 1) << 4
            else:
                raise NotImplementedError(f"{w:#08x} at {pc:#x}")
        elif op1 == 0 and op2 == 6:
            a[r] = (-a[t] if s == 0 else abs(signed(a[t]))) & M32
        elif op1 == 0 and op2 >= 8:
            x = a[s] << (op2 & 3)
            a[r] = (x - a[t] if op2 & 4 else x + a[t]) & M32
        elif op1 == 1:
            if op2 in (0, 1):
                a[r] = (a[s] << (32 - (t | (op2 & 1) << 4))) & M32
            elif op2 in (2, 3):
                a[r] = signed(a[t]) >> (s | (op2 & 1) << 4) & M32
            elif op2 == 4:
                a[r] = a[t] >> s
            elif op2 == 8:
                a[r] = (a[s] << 32 | a[t]) >> self.sar & M32
            elif op2 == 9:
                a[r] = a[t] >> self.sar
            elif op2 == 10:
                a[r] = (a[s] << 32 >> self.sar) & M32
            elif op2 == 11:
                a[r] = signed(a[t]) >> self.sar & M32
            elif op2 == 12:
                a[r] = (a[s] & 0xFFFF) * (a[t] & 0xFFFF)
            elif op2 == 13:
                a[r] = signed(a[s], 16) * signed(a[t], 16) & M32
            else:
                raise NotImplementedError(f"{w:#08x} at {pc:#x}")
        elif op1 == 2 and op2 == 8:
            a[r] = a[s] * a[t] & M32
        elif op1 == 3 and op2 in (8, 9, 10, 11):  # moveqz, movnez, movltz, movgez
            b = a[t]
            if (b == 0, b != 0, signed(b) < 0, signed(b) >= 0)[op2 - 8]:
                a[r] = a[s]
        elif op1 in (4, 5):  # extui
            a[r] = a[t] >> (s | (op1 & 1) << 4) & ((1 << (op2 + 1)) - 1)
        else:
            raise NotImplementedError(f"{w:#08x} at {pc:#x}")


def machine(path: Path) -> Machine:
    """The processor that the ELF at `path` is for, at its entry point."""
    return Lx106(path) if ElfFile.open(path).arch == "xtensa" else Riscv(path)
