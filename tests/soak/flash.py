"""Flashing over bad links and through power cuts, on the virtual board's clock: ``python -m tests.soak.flash [--runs N]``.

Lossy: every frame, in each direction, is lost with the same probability, independently; a run counts when the client
says that flash holds the image and it does. Saying so of flash that differs is a failure of its own. Cuts: the supply is
cut for good at every `step`-th byte that the loader receives in a write over an older firmware, at each request's
borders, and inside every erase and page; then the flash may hold the old image, the new one, or nothing that boots.
The same write, run again on what the cut left, must complete.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from espmon import chips
from espmon.bootloader.actions import Action, Send
from espmon.bootloader.image import ImageFault, parse
from espmon.bootloader.session import Session
from espmon.bootloader.write import Region, Written, write_regions
from espmon.errors import EspmonError
from tests.bootloader import images
from tests.bootloader.virtual import Player, board, plan

CHIPS = ("esp8266", "esp32", "esp32c3")


def image_for(chip: str, kib: int, seed: int) -> bytes:
    """One whole image, loaded and checked by the ROM to its last byte."""
    chip_id = chips.CHIPS[chip].image_chip_id
    return images.big_esp8266_image(kib, seed) if chip_id is None else images.big_esp32_image(chip_id, kib, seed)


def write(player: Player, chip: str, image: bytes, **changes: object) -> Written:
    """Reset into the loader, write, verify."""
    offset = chips.CHIPS[chip].boot_offset
    session = Session(plan(**changes))
    regions = [Region(offset=offset, content=image, source="image", image=True)]
    return player.run(session.run(lambda loader: write_regions(loader, regions, offset)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: what it came to, in virtual seconds."""

    result: str
    seconds: float


def lossy_run(chip: str, seed: int, kib: int = 300, **faults: object) -> Outcome:
    """One seeded run; `result` is ``ok``, ``unverified``, an error's code, or ``FALSE SUCCESS``."""
    there = board(chip=chip, seed=seed, **faults)
    image = image_for(chip, kib, seed)
    offset = chips.CHIPS[chip].boot_offset
    try:
        written = write(Player(there), chip, image)
    except EspmonError as error:
        return Outcome(error.code, there.now)
    if bytes(there.flash.cells[offset : offset + len(image)]) != image:
        return Outcome("FALSE SUCCESS", there.now)
    return Outcome("ok" if written.verified else "unverified", there.now)


def boots(cells: bytes, chip: str) -> bool:
    """Whether the ROM would start what stands at the boot offset (our own reading of the format)."""
    offset = chips.CHIPS[chip].boot_offset
    try:
        return parse(cells[offset:], esp8266=chip == "esp8266").fault is None
    except ImageFault:
        return False


class _Counting(Player):
    """Remembers where in the sent bytes each request began and ended."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.borders: list[int] = []

    def _perform(self, action: Action) -> object:
        if isinstance(action, Send):
            self.borders += [self.sent, self.sent + len(action.data)]
        return super()._perform(action)


def cut_points(chip: str, old: bytes, new: bytes, step: int, stub: bool) -> list[dict[str, int]]:
    """Faults to inject: received bytes, programmed bytes and erase commands at which the supply goes."""
    there = board(_flash(chip, old), chip=chip)
    player = _Counting(there)
    write(player, chip, new, use_stub=stub)
    total = player.sent
    received = sorted(
        {*range(1, total, step), *(b + d for b in player.borders for d in (-1, 0, 1) if 0 < b + d < total)}
    )
    points = [{"cut_rx_at": n} for n in received]
    points += [{"cut_at": n} for n in range(1, len(new) + 0x2000, step * 16 + 1)]
    points += [{"cut_erase": n} for n in range(1, 64)]
    return points


def _flash(chip: str, old: bytes) -> bytearray:
    cells = bytearray(b"\xff") * (4 << 20)
    offset = chips.CHIPS[chip].boot_offset
    cells[offset : offset + len(old)] = old
    cells[0x100000:0x100100] = bytes(range(256))  # somebody else's
    return cells


def cut_run(chip: str, old: bytes, new: bytes, fault: dict[str, int], stub: bool = True) -> str | None:
    """One cut; None when all is well, else what went wrong."""
    offset = chips.CHIPS[chip].boot_offset
    cells = _flash(chip, old)
    there = board(cells, chip=chip, **fault)
    try:
        write(Player(there), chip, new, resets=2, use_stub=stub)
        survived = True
    except EspmonError:
        survived = False
    left = bytes(cells)
    found = left[offset : offset + len(new)]
    if survived and found != new:
        return f"{fault}: success, but flash differs"
    if boots(left, chip) and found != new and left[offset : offset + len(old)] != old:
        return f"{fault}: boots half an image"
    try:
        written = write(Player(board(cells, chip=chip)), chip, new, use_stub=stub)
    except EspmonError as error:
        return f"{fault}: the next run ended with {error.code}"
    left = bytes(cells)
    if left[offset : offset + len(new)] != new or (stub and not written.verified):
        return f"{fault}: the next run left other bytes"
    if left[0x100000:0x100100] != bytes(range(256)) or left[0x200000:].count(0xFF) != len(left) - 0x200000:
        return f"{fault}: bytes outside the image were touched"
    return None


def cut_sweep(chip: str, kib: int, step: int, stub: bool = True) -> Iterator[str | None]:
    """All cut points of one write."""
    old, new = image_for(chip, kib, 1), image_for(chip, kib, 2)
    for fault in cut_points(chip, old, new, step, stub):
        yield cut_run(chip, old, new, fault, stub)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400, help="lossy runs per chip and rate (default 400)")
    parser.add_argument("--step", type=int, default=97, help="cut at every so many bytes (default 97)")
    parser.add_argument("--kib", type=int, default=300, help="size of the image in the lossy runs (default 300)")
    parser.add_argument("--cut-kib", type=int, default=64, help="size of the image in the power cuts (default 64)")
    parser.add_argument("--peer-runs", type=int, default=0, help="runs of real esptool beside it, per rate (default 0)")
    chosen = parser.parse_args()
    bad = 0
    print("chip      loss  runs  reached  false  virtual s median/max  results")
    for chip in CHIPS:
        for loss, share in ((0.01, 0.99), (0.05, 0.95), (0.2, 0.0)):
            runs = [lossy_run(chip, seed, chosen.kib, lose=loss) for seed in range(chosen.runs)]
            results = Counter(r.result for r in runs)
            seconds = [r.seconds for r in runs]
            reached = results["ok"] / len(runs)
            bad += reached < share or results["FALSE SUCCESS"] > 0
            print(
                f"{chip:9} {loss:4.0%} {len(runs):5} {reached:8.2%} {results['FALSE SUCCESS']:5} "
                f"{statistics.median(seconds):9.1f}/{max(seconds):<9.1f}   {dict(results)}",
                flush=True,
            )
    for chip in CHIPS:
        for stub in (True, False):
            start, count, faults = time.monotonic(), 0, []
            for outcome in cut_sweep(chip, chosen.cut_kib, chosen.step, stub):
                count += 1
                if outcome is not None:
                    faults.append(outcome)
            bad += len(faults)
            print(
                f"{chip:9} power cuts, {'stub' if stub else 'ROM only'}: {count} runs, {len(faults)} bad "
                f"({time.monotonic() - start:.0f} s) {faults[:3]}",
                flush=True,
            )
    if chosen.peer_runs:
        from tests.soak.flash_peer import esptool_share

        for loss in (0.01, 0.05):
            reached, runs = esptool_share(loss, chosen.peer_runs)
            print(f"esptool   {loss:4.0%} {runs:5} {reached / runs:8.2%}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
