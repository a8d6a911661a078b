"""Names as people read them: clone suffixes off, C++ names demangled where the demangler is installed."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from espmon.symbolize.elf import clean

# what GCC and clang append to the copies they make of a function: foo.constprop.0, foo.isra.2.part.1, foo.cold; Debian's
# lx106 compiler writes $ for the dot
_CLONE = re.compile(r"(?:[.$](?:part|constprop|isra|cold|lto_priv|llvm|localalias|clone)(?:[.$]\d+)*)+$")
# what can follow a parameter list
_TAIL = re.compile(r"(?: const| volatile| &&?| noexcept|\[[^\]]*\])+$")


def without_clone_suffix(name: str) -> str:
    """``foo`` for ``foo.constprop.0``: a copy that the compiler made is, to a person, the function itself."""
    return _CLONE.sub("", name) if "." in name or "$" in name else name


@lru_cache(1)
def _demangler() -> Callable[[str], str | None] | None:
    """The demangler, or None where it is not installed: there are machines without a build of it."""
    try:
        import pycxxfilt
    except Exception:  # noqa: BLE001 - absent, or present without a library for this machine
        return None
    demangle: Callable[[str], str | None] = pycxxfilt.demangle
    return demangle


@lru_cache(4096)
def demangled(name: str) -> str:
    """A linkage name as ``ns::Class<int>::method``, without return type and parameters, like names from DWARF.

    Unchanged (but for clone suffixes) when it is no C++ name, or when no demangler is installed.
    """
    name = without_clone_suffix(name)
    if not name.startswith("_Z"):
        return name
    demangle = _demangler()
    if demangle is None:
        return name
    try:
        full = demangle(name)
    except Exception:  # noqa: BLE001 - a name that it cannot read stays as it is
        return name
    return bare(clean(full)) if full else name


def bare(signature: str) -> str:
    """A demangled signature without its return type and parameters: ``void f<int>(int) const`` is ``f<int>``."""
    text = _TAIL.sub("", signature)
    if text.endswith(")"):
        depth = 0
        for at in range(len(text) - 1, -1, -1):
            depth += {")": 1, "(": -1}.get(text[at], 0)
            if depth == 0:
                # "operator()" and "(anonymous namespace)" are names, not parameter lists
                if (
                    at
                    and text[at:] != "(anonymous namespace)"
                    and not (text[at:] == "()" and text[:at].endswith("operator"))
                ):
                    text = text[:at]
                break
    # the return type of a function template stands before the last blank outside brackets; an operator's name may
    # itself hold a blank or brackets, so the blank before it is looked for from there
    operator = text.rfind("operator")
    end = operator if operator == 0 or (operator > 0 and text[operator - 1] in " :") else len(text)
    depth = 0
    for at in range(end - 1, 0, -1):
        char = text[at]
        if char in ")}]>":
            depth += 1
        elif char in "({[<":
            depth -= 1
        elif char == " " and depth <= 0:
            return text[at + 1 :]
    return text
