"""Values: as frozen, equal and copyable as dataclasses are, without compiling anything at import."""

import copy
import dataclasses
import pickle
from dataclasses import field
from typing import ClassVar

import pytest

from espmon.events import Boot, Event, ResetCause, Text
from espmon.values import Value, positional_value, value


@value
class Base(Value):
    type: ClassVar[str] = "base"

    number: int = 1
    names: list[str] = field(default_factory=list)


@value
class Derived(Base):
    type: ClassVar[str] = "derived"

    must: str


@positional_value
class Pair(Value):
    first: int
    second: int = 2


def test_defaults_keywords_and_factories():
    one, other = Base(), Base()
    assert (one.number, one.names) == (1, [])
    assert one.names is not other.names
    assert Derived(must="x").number == 1
    assert (Pair(5).first, Pair(5).second, Pair(second=7, first=6).second) == (5, 2, 7)


def test_a_derived_class_has_its_own_init_whichever_is_made_first():
    Base()
    assert Derived(must="x", number=3).must == "x"
    with pytest.raises(TypeError, match="must"):
        Derived()
    with pytest.raises(TypeError, match="nonsense"):
        Base(nonsense=1)
    with pytest.raises(TypeError, match="positional"):
        Base(1)
    with pytest.raises(TypeError):
        Pair()


def test_frozen_and_slotted():
    pair = Pair(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        pair.first = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del pair.first
    with pytest.raises(AttributeError):
        pair.other = 2
    assert not hasattr(pair, "__dict__")
    assert not hasattr(Text(raw=b""), "__dict__")


def test_equal_by_class_and_fields():
    assert Pair(1) == Pair(1, 2)
    assert Pair(1) != Pair(2)
    assert hash(Pair(1)) == hash(Pair(1, 2))
    assert Base() != Derived(must="")
    assert Event() != Text()
    assert Pair(1) != (1, 2)


def test_repr_names_every_field():
    assert repr(Pair(1)) == "Pair(first=1, second=2)"
    assert repr(Derived(must="x")) == "Derived(number=1, names=[], must='x')"


def test_the_tools_of_dataclasses_work():
    boot = Boot(chip="esp32", reset=ResetCause(code=1))
    assert dataclasses.replace(boot, line=4).line == 4
    assert dataclasses.replace(boot, line=4).reset == boot.reset
    assert dataclasses.asdict(Pair(1)) == {"first": 1, "second": 2}
    assert "type" not in {each.name for each in dataclasses.fields(boot)}


@pytest.mark.parametrize("made", [Pair(1), Derived(must="x"), Boot(chip="esp32", reset=ResetCause(code=1))])
def test_copies_and_pickles(made):
    assert copy.copy(made) == made
    assert copy.deepcopy(made) == made
    assert pickle.loads(pickle.dumps(made)) == made
