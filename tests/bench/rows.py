"""One line of a benchmark's result: what was measured, against what, and the ratio that was promised."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """`value` in `unit`; `ratio` to the reference named in `against`; `limit` as promised (``<= 2``, ``>= 3``)."""

    name: str
    value: float
    unit: str
    ratio: float | None = None
    against: str = ""
    limit: str = ""

    def __str__(self) -> str:
        text = f"{self.name:<44} {self.value:>10.3g} {self.unit}"
        if self.ratio is not None:
            text += f"   {self.ratio:.2f} x {self.against}"
        return f"{text}   (promised {self.limit})" if self.limit else text
