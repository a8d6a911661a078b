"""Names as people write them."""

from __future__ import annotations

import pytest

from espmon.symbolize import Symbolizer, names
from espmon.symbolize.elf import ElfFile
from espmon.symbolize.names import bare, demangled, without_clone_suffix
from tests.symbolize.fixtures import elf


@pytest.mark.parametrize(
    ("signature", "name"),
    [
        ("foo(int)", "foo"),
        ("foo", "foo"),
        ("void foo::bar<3>(int)", "foo::bar<3>"),
        ("foo::bar(int) const", "foo::bar"),
        ("(anonymous namespace)::f(int)", "(anonymous namespace)::f"),
        ("ns::(anonymous namespace)::f", "ns::(anonymous namespace)::f"),
        ("ns::{lambda(int)#1}::operator()(int) const", "ns::{lambda(int)#1}::operator()"),
        ("A::operator()()", "A::operator()"),
        ("A::operator()", "A::operator()"),
        ("operator<<(std::ostream&, int)", "operator<<"),
        ("void ns::operator>><int>(int)", "ns::operator>><int>"),
        ("ns::operator-><int>(int)", "ns::operator-><int>"),
        ("bool operator==<int>(int)", "operator==<int>"),
        ("operator new(unsigned int)", "operator new"),
        ("foo::operator bool() const", "foo::operator bool"),
        ("std::vector<int, std::allocator<int> >::push_back(int const&)", "std::vector<int, std::allocator<int> >::push_back"),
        ("unsigned int max<unsigned int>(unsigned int const&)", "max<unsigned int>"),
        ("decltype(auto) f<int>()", "f<int>"),
        ("f(void (*)(int), char)", "f"),
    ],
)
def test_bare(signature: str, name: str) -> None:
    assert bare(signature) == name


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("foo.constprop.0", "foo"),
        ("foo.isra.2.part.1", "foo"),
        ("foo.cold", "foo"),
        ("foo$isra$0", "foo"),
        ("foo.lto_priv.12.constprop.3", "foo"),
        ("memcpy.prefixcode", "memcpy.prefixcode"),
        ("a.b", "a.b"),
        ("foo", "foo"),
    ],
)
def test_clones_are_their_function(symbol: str, name: str) -> None:
    assert without_clone_suffix(symbol) == name


def test_without_a_demangler_names_stay_mangled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_demangler", lambda: None)
    demangled.cache_clear()
    assert demangled("_ZN6vendor10calibratedEi.constprop.0") == "_ZN6vendor10calibratedEi"
    demangled.cache_clear()


def test_vendor_names_are_demangled() -> None:
    pytest.importorskip("pycxxfilt", reason="no demangler for this machine")
    path = elf("rv32-dw5-Os")
    opened = ElfFile.open(path)
    found = {Symbolizer([path]).lookup(opened.symbols[at].address)[-1].function for at in range(len(opened.symbols))}
    assert {"vendor::calibrated", "vendor::Gain<int>::apply", "vendor::(anonymous namespace)::hidden"} <= found


def test_names_from_the_tree_have_their_scopes() -> None:
    path = elf("rv32-dw5-Og")
    opened = ElfFile.open(path)
    symbolizer = Symbolizer([path])
    found = {frame.function for at in range(len(opened.symbols)) for address in range(opened.symbols[at].address, opened.symbols[at].end, 2) for frame in symbolizer.lookup(address)}
    assert {
        "app_main",
        "shapes::Box::area",
        "shapes::Box::Corner::distance",
        "shapes::Ring<int, 8>::push",
        "shapes::(anonymous namespace)::larger<int>",
        "shapes::(anonymous namespace)::Counter::next",
        "shapes::detail::v1::folded",
        "shapes::Point::operator int",
        "shapes::Point::operator<",
        "shapes_run::Local::weigh",
        "shapes_run::{lambda}::operator()",
    } <= found
