"""What `.debug_abbrev` declares: each abbreviation compiled once into how far to skip and which attributes to read."""

from __future__ import annotations

# tags (DWARF 5, section 7.5.3)
TAG_CLASS = 0x02
TAG_ENUM = 0x04
TAG_LEXICAL_BLOCK = 0x0B
TAG_STRUCT = 0x13
TAG_UNION = 0x17
TAG_INLINED = 0x1D
TAG_MODULE = 0x1E
TAG_SUBPROGRAM = 0x2E
TAG_NAMESPACE = 0x39
SCOPES = frozenset(
    (TAG_CLASS, TAG_ENUM, TAG_STRUCT, TAG_UNION, TAG_MODULE, TAG_SUBPROGRAM, TAG_NAMESPACE, 0x38)
)  # 0x38: interface
TYPES = frozenset((TAG_CLASS, TAG_STRUCT, TAG_UNION))

# attributes
AT_SIBLING = 0x01
AT_NAME = 0x03
AT_STMT_LIST = 0x10
AT_LOW_PC = 0x11
AT_HIGH_PC = 0x12
AT_COMP_DIR = 0x1B
AT_ABSTRACT_ORIGIN = 0x31
AT_SPECIFICATION = 0x47
AT_RANGES = 0x55
AT_CALL_FILE = 0x58
AT_CALL_LINE = 0x59
AT_LINKAGE_NAME = 0x6E
AT_STR_OFFSETS_BASE = 0x72
AT_ADDR_BASE = 0x73
AT_RNGLISTS_BASE = 0x74
AT_MIPS_LINKAGE_NAME = 0x2007
_WANTED = frozenset((
    AT_NAME, AT_STMT_LIST, AT_LOW_PC, AT_HIGH_PC, AT_COMP_DIR, AT_ABSTRACT_ORIGIN, AT_SPECIFICATION, AT_RANGES, AT_CALL_FILE,
    AT_CALL_LINE, AT_LINKAGE_NAME, AT_STR_OFFSETS_BASE, AT_ADDR_BASE, AT_RNGLISTS_BASE, AT_MIPS_LINKAGE_NAME,
))  # fmt: skip

# forms whose size does not depend on the content; -1 stands for the unit's offset size, -2 for its address size
_FIXED = {
    0x01: -2, 0x05: 2, 0x06: 4, 0x07: 8, 0x0B: 1, 0x0C: 1, 0x0E: -1, 0x11: 1, 0x12: 2, 0x13: 4, 0x14: 8, 0x17: -1, 0x19: 0,
    0x1C: 4, 0x1D: -1, 0x1E: 16, 0x1F: -1, 0x20: 8, 0x21: 0, 0x24: 8, 0x25: 1, 0x26: 2, 0x27: 3, 0x28: 4, 0x29: 1, 0x2A: 2,
    0x2B: 3, 0x2C: 4, 0x1F20: -1, 0x1F21: -1,
}  # fmt: skip
ULEB_FORMS = frozenset((0x0D, 0x0F, 0x15, 0x1A, 0x1B, 0x22, 0x23, 0x1F01, 0x1F02))
FORM_IMPLICIT_CONST = 0x21

# what a walk does with a DIE
KIND_LEAF = 0  # skip it
KIND_TREE = 1  # skip it and its children
KIND_SCOPE = 2  # namespace, class: remember where it lies; children skipped
KIND_NAMESPACE = 3  # walk into it
KIND_FUNCTION = 4  # a subprogram with code
KIND_INLINED = 5
KIND_BLOCK = 6  # lexical block and the like: its children belong to the parent


class Abbrev:
    """One abbreviation, compiled: its tag, what a walk does with it, and how to skip or read its attributes."""

    __slots__ = ("attributes", "children", "kind", "sibling_at", "size", "steps", "tag")

    def __init__(
        self,
        tag: int,
        children: bool,
        attributes: tuple[tuple[int, int, int], ...],
        offset_size: int,
        address_size: int,
        version: int,
    ) -> None:
        self.tag = tag
        self.children = children
        # (attribute or 0 when nobody asks for it, form, implicit value, size or -1); unwanted neighbours of known size joined
        plan: list[tuple[int, int, int, int]] = []
        # steps to skip it: a non-negative number of bytes, or ~form for a form that must be looked at
        steps: list[int] = []
        run = 0
        self.sibling_at: tuple[int, int] | None = None  # (distance from after the code, size)
        names = set()
        for attribute, form, implicit in attributes:
            names.add(attribute)
            size = size_of(form, offset_size, address_size, version)
            if attribute == AT_SIBLING and not steps and size is not None and 0x11 <= form <= 0x13:
                self.sibling_at = (run, size)
            if size is None:
                if run:
                    steps.append(run)
                    run = 0
                steps.append(~form)
            else:
                run += size
            if attribute in _WANTED:
                plan.append((attribute, form, implicit, -1))
            elif size is not None and plan and plan[-1][3] >= 0:
                plan[-1] = (0, 0, 0, plan[-1][3] + size)
            else:
                plan.append((0, form, 0, -1 if size is None else size))
        self.attributes = plan
        self.size = run if not steps else -1
        if run and steps:
            steps.append(run)
        self.steps = steps
        if tag == TAG_SUBPROGRAM and (AT_LOW_PC in names or AT_RANGES in names):
            self.kind = KIND_FUNCTION
        elif tag == TAG_INLINED:
            self.kind = KIND_INLINED
        elif tag in (TAG_NAMESPACE, TAG_MODULE):
            self.kind = KIND_NAMESPACE if children else KIND_LEAF
        elif not children:
            self.kind = KIND_LEAF
        elif tag in SCOPES:
            self.kind = KIND_SCOPE
        elif tag in (TAG_LEXICAL_BLOCK, 0x32, 0x25, 0x22):  # try_block, catch_block, with_stmt
            self.kind = KIND_BLOCK
        else:
            self.kind = KIND_TREE


def size_of(form: int, offset_size: int, address_size: int, version: int) -> int | None:
    """Bytes that a value of this form takes; None where that depends on the value."""
    if form == 0x10:  # ref_addr: an address in DWARF 2, an offset since
        return address_size if version <= 2 else offset_size
    size = _FIXED.get(form)
    if size == -1:
        return offset_size
    if size == -2:
        return address_size
    return size
