"""The sweep of recovery: every fault that the virtual board has, power cuts, lost links and dead hosts, on a virtual clock.

`python -m tests.soak.recovery [--rounds N] [--kills N] [--only WORD]`, also `python -m tests.soak.daemon sweep`. Each outcome
is judged: what must come back holds the image and runs; what must not be written had not one cell erased or programmed;
nothing is worse than before; writes stay within the budget whatever dies in between.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.app.recovery_rig import Bench, flash_of, good_pieces, other_firmware

HOUR = 3600.0


@dataclass(frozen=True)
class Case:
    """One fault. `must`: ``repaired``, ``untouched``, or ``no-worse`` (it may be written, and may stay broken)."""

    name: str
    chip: str
    damage: str
    must: str
    settings: str = ""
    prepare: Callable[[Bench, random.Random], None] = lambda bench, rng: None
    cells: Callable[[str], bytearray] | None = None
    pieces: Callable[[str], list[tuple[int, bytes]]] = good_pieces
    reason: str = ""  # words that the outcome must give
    seconds: float = 240.0  # of the board, like the daemon
    restarts: int = 0  # of the host, at random moments


def _power_cut(bench: Bench, rng: random.Random) -> None:
    """The power comes back when the host has long given up."""


def _link_drops(bench: Bench, rng: random.Random) -> None:
    bench.gone_at = rng.randrange(60, 420)
    bench.away_s = rng.uniform(0.5, 40.0)


def _too_big(chip: str) -> list[tuple[int, bytes]]:
    pieces = good_pieces(chip)
    return [*pieces[:-1], (pieces[-1][0], pieces[-1][1].ljust((1 << 20) + 0x1000, b"\0"))]


def _image_damaged(chip: str) -> list[tuple[int, bytes]]:
    offset, content = good_pieces(chip)[0]
    return [(offset, content[:200] + bytes([content[200] ^ 1]) + content[201:]), *good_pieces(chip)[1:]]


def _of_other_chip(chip: str) -> list[tuple[int, bytes]]:
    return good_pieces({"esp8266": "esp32c3", "esp32": "esp8266", "esp32c3": "esp32s3"}[chip])


def _cases() -> list[Case]:
    out: list[Case] = []
    for damage in ("segment", "checksum", "blank", "header", "all"):
        out.append(Case(f"esp8266 {damage}", "esp8266", damage, "repaired"))
    for chip in ("esp32", "esp32c3"):
        for damage in ("segment", "blank", "header", "checksum", "table", "table bit", "app", "app bit", "all"):
            out.append(Case(f"{chip} {damage}", chip, damage, "repaired"))
    for chip, damage in (("esp8266", "segment"), ("esp32", "app"), ("esp32c3", "all")):
        for what, settings in (
            ("1 % of frames lost", "lose=0.01"),
            ("5 % of frames lost", "lose=0.05"),
            ("frames damaged", "corrupt=0.01"),
            ("frames twice", "duplicate=0.05"),
            ("bytes dropped", "drop_bytes=0.01"),
            ("rates above 115200 fail", "baud_limit=120000"),
            ("slow flash", "slow_erase=4"),
            ("slow adapter", "latency=0.016"),
            ("reset in the middle", "reset_at=9000"),
            ("a stub that stays silent", "stub=silent"),
            ("lines wired straight", "wiring=direct"),
        ):
            # the ESP8266's ROM alone can neither read nor hash its flash: nothing is written then
            must = "untouched" if chip == "esp8266" and "stub" in settings else "repaired"
            out.append(Case(f"{chip}, {what}", chip, damage, must, settings))
        out += [
            Case(f"{chip}, link drops in the middle", chip, damage, "repaired", "", _link_drops, seconds=900),
            Case(f"{chip}, power cut in mid-write", chip, damage, "repaired", "cut_at={cut}", _power_cut, seconds=2 * HOUR),
            Case(f"{chip}, host restarts at random", chip, damage, "repaired", restarts=3, seconds=900),
            Case(f"{chip}, write-protected flash", chip, damage, "no-worse", "write_protected=1"),
            Case(f"{chip}, a bit that cannot be cleared", chip, damage, "no-worse", "bad_bit={bit}"),
            Case(f"{chip}, healthy", chip, "", "untouched"),
            Case(f"{chip}, healthy, another firmware", chip, "", "untouched", cells=other_firmware),
            Case(f"{chip}, healthy, talks every ten minutes", chip, "", "untouched", "pace=600", cells=other_firmware, seconds=1500),
            Case(f"{chip}, healthy, silent", chip, "", "untouched", "app=silent", cells=other_firmware),
            Case(f"{chip}, healthy, binary", chip, "", "untouched", "app=binary", cells=other_firmware),
            Case(f"{chip}, crashes now and then", chip, "", "untouched", "crash=watchdog&rounds=14", cells=other_firmware),
            Case(f"{chip}, boot pin held low", chip, damage, "untouched", "boot_low=1"),
            Case(f"{chip}, reset line not wired", chip, damage, "untouched", "no_reset=1"),
            Case(f"{chip}, flash does not answer", chip, damage, "untouched", "flash_id=0xffffff"),
            # told by contents that repeat: a flash that is blank where it boots tells nothing, and the image fits into what is there
            Case(f"{chip}, flash smaller than it says", chip, damage, "no-worse" if damage == "all" else "untouched", "flash_claims=4m"),
            Case(f"{chip}, nothing reaches the chip", chip, damage, "untouched", "no_rx=1"),
            Case(f"{chip}, image of another chip", chip, damage, "untouched", pieces=_of_other_chip),
            Case(f"{chip}, image larger than the flash", chip, damage, "untouched", pieces=_too_big),
            Case(f"{chip}, image damaged", chip, damage, "untouched", pieces=_image_damaged),
        ]
    out.append(Case("esp8266, crash loop, flash intact", "esp8266", "", "untouched", "crash=illegal&rounds=0&pace=0.02", reason="cannot help"))
    for chip in ("esp32", "esp32c3"):
        out += [
            Case(f"{chip}, watchdog loop, flash intact", chip, "", "untouched", "crash=watchdog&pace=0.1", reason="cannot help"),
            Case(f"{chip}, brownouts, then damaged flash", chip, "all", "untouched", "weak_supply=2", reason="brownout"),
            Case(f"{chip}, brownouts inside the loop", chip, "app", "untouched", "weak_supply=1&weak_after=2", reason="brownout"),
            Case(f"{chip}, brownouts during recovery", chip, "table", "untouched", "weak_supply=1&weak_after=3", reason="brownout"),
            Case(f"{chip}, brownout loop, another firmware", chip, "", "untouched", "crash=brownout&pace=0.1", cells=other_firmware),
            Case(f"{chip}, brownout in mid-write", chip, "all", "no-worse", "brownout={cut}", reason="brownout"),
            Case(f"{chip}, secure boot", chip, "all", "untouched", "secure_boot=1"),
            Case(f"{chip}, flash encryption", chip, "all", "untouched", "encryption=1"),
            Case(f"{chip}, secure download mode", chip, "all", "untouched", "secure_download=1"),
            Case(f"{chip}, one slot damaged, the other runs", chip, "", "untouched", cells=_second_slot_runs),
        ]
    return out


def _second_slot_runs(chip: str) -> bytearray:
    cells = flash_of(chip, "app bit")
    cells[0x70000 : 0x70000 + 0x8000] = other_firmware(chip)[0x10000:0x18000]
    return cells


CASES = _cases()


@dataclass
class Tally:
    """What came of all runs."""

    runs: int = 0
    must_come_back: int = 0
    came_back: int = 0
    problems: list[str] = field(default_factory=list)
    by_case: dict[str, list[str]] = field(default_factory=dict)

    def note(self, case: str, outcome: str) -> None:
        self.by_case.setdefault(case, []).append(outcome)


def run_case(case: Case, seed: int, folder: Path, tally: Tally, *, by_hand: bool = False) -> None:
    """One run of one case, judged."""
    rng = random.Random(f"{case.name}-{seed}")
    image_bytes = sum(len(c) for _, c in good_pieces(case.chip))
    settings = f"chip={case.chip}&pace=1&seed={seed}&{case.settings}".format(
        cut=rng.randrange(50, 4000 if case.chip == "esp8266" else image_bytes), bit=0x100
    )
    cells = case.cells(case.chip) if case.cells else flash_of(case.chip, case.damage)
    bench = Bench(folder, settings, cells=cells, pieces=case.pieces(case.chip))
    case.prepare(bench, rng)
    end = bench.clock.seconds + case.seconds
    hosts = 0
    kept_up = 0
    while bench.clock.seconds < end - 0.01:
        if hosts < case.restarts:
            bench.kill_at = bench.operations + rng.randrange(5, 700)
        hosts += 1
        if by_hand:
            bench.recover()
        else:
            bench.watch(end - bench.clock.seconds, until_ended=case.must == "repaired")
        if not bench.board._power:
            bench.clock.sleep(20.0)
            bench.board.power(True)
        if bench.dead:
            bench.clock.sleep(rng.uniform(0.5, 5.0))
        elif by_hand and not bench.repaired and case.must == "repaired" and kept_up < 3:
            kept_up += 1  # a person tries again
        elif by_hand or bench.repaired:
            break
    tally.runs += 1
    where = f"{case.name}, seed {seed}{' by hand' if by_hand else ''}"
    if (worse := bench.worse()) is not None:
        tally.problems.append(f"{where}: {worse}")
    if case.must == "untouched" and not bench.untouched:
        tally.problems.append(f"{where}: {bench.board.flash.erased_sectors} sectors erased that must not be; {bench.steps()[-4:]}")
    if case.reason and not by_hand and case.reason not in bench.reasons() + "".join(bench.steps()):
        tally.problems.append(f"{where}: no word of {case.reason!r} in {bench.reasons()[-200:]}")
    budget_kept(bench, where, tally)
    outcome = "repaired" if bench.repaired and case.damage else (bench.ends() or ["left alone"])[-1]
    if case.must == "repaired":
        tally.must_come_back += 1
        good = bench.repaired and bench.healthy
        tally.came_back += good
        if not good:
            outcome = f"NOT repaired ({bench.ends()[-1:]}: {bench.reasons()[-160:]})"
    tally.note(case.name, outcome)


def budget_kept(bench: Bench, where: str, tally: Tally, per_hour: int = 2) -> None:
    """Incidents begun within any hour, whatever hosts died: the budget of a board that nobody asked to be recovered."""
    if not bench.lives or bench.lives[-1]._settings.by_hand:
        return
    first: dict[str, float] = {}
    for e in bench.events:
        if e.type == "recovery" and getattr(e, "incident", None) and e.at is not None:
            first.setdefault(e.incident, e.at)  # type: ignore[attr-defined]
    begun = sorted(first.values())
    for at in begun:
        if len([t for t in begun if at <= t < at + HOUR]) > per_hour:
            tally.problems.append(f"{where}: more than {per_hour} incidents within an hour")
            return


def kill_everywhere(chip: str, damage: str, folder: Path, tally: Tally, *, most: int, seed: int = 0) -> int:
    """The host dies at the k-th thing that it does, for each k (or `most` of them); the next host ends it well."""
    bench = Bench(folder / "whole", f"chip={chip}&pace=1", cells=flash_of(chip, damage))
    bench.watch(240.0, until_ended=True)
    total = bench.operations
    moments = list(range(1, total + 1))
    if most and most < total:
        moments = sorted(random.Random(f"{chip}-{damage}-{seed}").sample(moments, most))
    for k in moments:
        home = folder / f"{chip}-{damage}-{k}".replace(" ", "_")
        bench = Bench(home, f"chip={chip}&pace=1&seed={k}", cells=flash_of(chip, damage))
        bench.kill_at = k
        bench.watch(240.0, until_ended=True)
        half = bytes(bench.cells)
        if (worse := bench.worse()) is not None:
            tally.problems.append(f"{chip} {damage}, killed at {k} of {total}: {worse}")
        bench.clock.sleep(2.0)
        bench.watch(600.0, until_ended=True)
        tally.runs += 1
        good = bench.repaired and bench.healthy
        if not good and not bench.events and bench.untouched:
            # its ROM said its last words to a host that died at that moment: no later host can know
            tally.note(f"host killed, {chip} {damage}", "left alone: it said nothing to the second host")
            continue
        tally.must_come_back += 1
        tally.came_back += good
        if not good:
            at = "in the middle of writing" if half != bench.before else "before writing"
            tally.note(f"host killed, {chip} {damage}", f"NOT repaired, killed at {k} of {total} {at}: {bench.reasons()[-200:]}")
        else:
            tally.note(f"host killed, {chip} {damage}", "repaired")
        if (worse := bench.worse()) is not None:
            tally.problems.append(f"{chip} {damage}, killed at {k} of {total}, then resumed: {worse}")
        budget_kept(bench, f"{chip} {damage} killed at {k}", tally)
        shutil.rmtree(home, ignore_errors=True)
    return len(moments)


def never_healed(folder: Path, tally: Tally, *, rounds: int) -> int:
    """A board that nothing can heal, hosts that die all the time: incidents and writes stay within the budget."""
    most = 0
    for turn in range(rounds):
        rng = random.Random(turn)
        # the image itself is bad in a way that only running shows: it is written, verified, and loops all the same
        bad = good_pieces("esp32")
        from espmon.board.live import small_image

        bad[2] = (bad[2][0], small_image("esp32", b"espmon-board:app=weather;crash=watchdog;pace=0.05;" + b"x" * 9000, digest=True, size_code=0))
        bench = Bench(folder / f"n{turn}", f"chip=esp32&seed={turn}", cells=flash_of("esp32", "app"), pieces=bad)
        while bench.clock.seconds < 8 * HOUR and len(bench.lives) < 40:
            bench.kill_at = bench.operations + rng.randrange(20, 2500)
            bench.watch(HOUR)
        budget_kept(bench, f"never healed, {turn}", tally)
        writes = [e.at for e in bench.events if e.type == "recovery" and e.step == "write" and e.outcome == "started" and e.at]  # type: ignore[attr-defined]
        busiest = max((len([t for t in writes if at <= t < at + HOUR]) for at in writes), default=0)
        most = max(most, busiest)
        # the first incident writes; after it the image is suspect, or the flash equals it. A host that dies in the middle may
        # have to write once more, five times an incident at most.
        if busiest > 6:
            tally.problems.append(f"never healed, {turn}: {busiest} writes within an hour")
        tally.runs += 1
        tally.note("a board that nothing heals", f"{len(writes)} writes")
    return most


def sweep(folder: Path, *, rounds: int, kills: int, only: str = "", loud: bool = False, minutes: float = 0.0, say: Callable[[str, bool], None] | None = None) -> Tally:
    """All cases `rounds` times, host kills at `kills` moments of each of five recoveries (0: all moments)."""
    say = say or (lambda text, good: print(("  " if good else "! ") + text, flush=True))
    tally = Tally()
    began, cpu = time.monotonic(), time.process_time()
    cases = [c for c in CASES if only in c.name]
    done = 0
    for turn in range(rounds):
        if minutes and time.monotonic() - began > minutes * 60:
            break
        done += 1
        for number, case in enumerate(cases):
            for by_hand in (False, True) if turn == 0 else (turn % 4 == 3,):
                home = folder / f"c{turn}-{number}-{by_hand}"
                started = time.monotonic()
                run_case(case, turn, home, tally, by_hand=by_hand)
                if loud:
                    print(f"    {time.monotonic() - started:5.1f} s  {case.name}: {tally.by_case[case.name][-1]}", flush=True)
                shutil.rmtree(home, ignore_errors=True)
    killed = 0
    if "kill".startswith(only) or "kill" in only or not only:
        for chip, damage in (("esp8266", "segment"), ("esp8266", "all"), ("esp32", "all"), ("esp32", "app bit"), ("esp32c3", "table")):
            killed += kill_everywhere(chip, damage, folder, tally, most=kills)
        most = never_healed(folder, tally, rounds=max(1, rounds // 10))
        say(f"a board that nothing heals, under hosts that die: {most} writes in its busiest hour", most <= 6)
    for name, found in tally.by_case.items():
        counts = ", ".join(f"{found.count(o)} x {o}" for o in dict.fromkeys(found))
        say(f"{name:<44} {counts[:300]}", "NOT" not in counts)
    say(f"{tally.runs} runs in {done} rounds ({killed} with the host killed) in {time.monotonic() - began:.0f} s, {time.process_time() - cpu:.0f} s of CPU", True)
    share = tally.came_back / max(1, tally.must_come_back)
    say(f"damaged flash repaired in {tally.came_back} of {tally.must_come_back} runs ({share:.2%}, promise 99 %)", share >= 0.99)
    say(f"{len(tally.problems)} boards written that must not be, worse than before, or over budget", not tally.problems)
    for problem in tally.problems[:20]:
        say(problem, False)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.soak.recovery", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--kills", type=int, default=20, help="moments per recovery at which the host is killed; 0: all")
    parser.add_argument("--loud", action="store_true", help="tell each run with its time")
    parser.add_argument("--minutes", type=float, default=0.0, help="begin no further round after so long")
    parser.add_argument("--only", default="", help="only cases with this word")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="espmon-sweep-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        tally = sweep(folder, rounds=chosen.rounds, kills=chosen.kills, only=chosen.only, loud=chosen.loud, minutes=chosen.minutes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if not tally.problems and tally.came_back >= 0.99 * tally.must_come_back else 1


if __name__ == "__main__":
    sys.exit(main())
