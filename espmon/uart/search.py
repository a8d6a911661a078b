"""The search for another rate, once garbage is heard: is it enough to judge, what does it tell, is a look from above worth it?

Sans-I/O. :class:`RateSearch` is told what was heard as garbage and when, what was read as text, and what the driver counted;
it answers with a :class:`ChangeRate` now and then. It knows nothing of what is held, of verdicts or of whose turn a byte is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from espmon.uart.banner import ROM_RATE
from espmon.uart.capture import text_share, wrong_rate
from espmon.uart.rate import Guess, guess, own_rate_cost

#: bytes that are still on their way through adapter and driver when a rate is changed, in seconds
_SETTLE_S = 0.06
_EVIDENCE_MOST = 1024
#: so much text in a row ends what garbage there was
_TEXT = 24
#: garbage bytes needed to change a rate that was never seen to read well, and one that was
_ENOUGH = 32
_ENOUGH_WELL = 400
_ENOUGH_WELL_S = 0.35
#: where a little more may decide it: so many bytes more
_SOON = 16
_LATEST = 128
#: a rate told from fewer bytes than these needs this margin, in nats
_FEW = 64
_MARGIN_FEW = 12
#: nats per byte by which text at a rate close to ours must be likelier, when nothing was read for long (other languages and
#: binary at our own rate: below 0.08)
_CLOSE_MARGIN = 0.15
#: zeros alone, at a rate that read well: the sender has become much slower, if they are so many for so long, and too few
#: per second for a dump of empty memory
_ZEROS_WELL = 1000
_ZEROS_WELL_S = 2.5
_ZEROS_SPEED = 0.4
#: where the sender is known to be slow: nats per byte to the next such rate, and to ours (Chinese at 74880: 1.3 to 1.8)
_CLEARLY_SLOWER = 0.35
#: near random bytes needed before looking from above
_ENOUGH_RANDOM = 32
#: and how little worse than noise text must explain them, in nats per byte (real noise: 0.07 to 0.15)
_NOISE = 0.05
#: a board that says a little now and then: so many bytes, in so many bursts over so many seconds, are enough to look
_SPARSE = 12
_SPARSE_BURSTS = 3
_SPARSE_S = 4.0
#: garbage that goes on so long at a rate that never read anything is looked at from above in any case
_PATIENT = 320
_PATIENT_S = 1.0
#: a driver that counts bytes without their stop bit proves another rate with this share of them (text at many times our
#: rate: 0.3 to 0.6; a bad cable at the right rate: below 0.02). None damaged proves nothing: at half of the sender's
#: rate every stop bit is sampled in one of the sender's
_DAMAGED = 0.1
#: FTDI's driver counts once a packet of up to 62 bytes, CDC-ACM's once a notice: there nearly every read that is not larger
#: has to hold one, of so many reads
_DAMAGED_READS = 0.9
_PACKET = 62
_READS = 8
#: and it goes on, in so many stretches of this length: a boot ROM at a rate of its own is damaged too, and over in one or two
_DAMAGED_STRETCHES = 4
_STRETCH_S = 0.25
#: garbage needed to leave a rate that read well when a driver proves it: more than a boot ROM's text, and longer
_ENOUGH_DAMAGED = 100
_ENOUGH_DAMAGED_S = 1.0
#: so long is looked from above for what a rate that read well doesn't read any more
_LOOK_S = 1.0
#: and so long for what nothing was read of
_LOOK_MOST_S = 4.0
#: text at the ROM's rate ends by itself after the loads, 400 characters: only what goes on is an application's
_ROM_LASTS_S = 0.25
#: what arrives so long after a banner did is certainly not the ROM's (57 ms of text, loads between, slow adapters)
ROM_OVER_S = 0.45
_FOREIGN_AT_ROM_RATE = 600
#: above this ratio sender / receiver the bytes are near random: look again from above, which loses nothing
_LOOK_UP = 4.5
#: above this one, where neighbouring rates make much the same bytes, a rate is believed with this margin, in nats;
#: with less it is looked at from above too
_MUCH_FASTER = 1.9
_MARGIN_FASTER = 16.0
_TOP_RATE = 921600
#: what a rate is tried with when nothing is told clearly, in nats to the next rate
_MARGIN_TRIED = 10.0
#: so often a rate is asked for that is never set
_TRIES = 2
_LOW_RATE = 9600


@dataclass(frozen=True, slots=True)
class ChangeRate:
    """The port should be set to `rate`. `why` is a plain sentence."""

    rate: int
    why: str


class _Damage:
    """What a driver counts of bytes that came without their stop bit, since the garbage began."""

    def __init__(self) -> None:
        self._total: int | None = None  # as the driver counts, since whenever; None: it doesn't say
        self.begin()

    def begin(self) -> None:
        """Whatever was counted so far is not of the garbage that may begin now."""
        self._counted = self._reads = self._damaged_reads = self._stretches = 0
        self._stretch: int | None = None

    def read(self, total: int, at: float) -> None:
        """A read at `at` brought the driver's count to `total`."""
        new = max(0, total - self._total) if self._total is not None else 0
        self._total = total
        self._reads += 1
        if new:
            self._counted += new
            self._damaged_reads += 1
            if (stretch := int(at / _STRETCH_S)) != self._stretch:
                self._stretch = stretch
                self._stretches += 1

    def proves(self, count: int) -> bool:
        """True when `count` bytes of garbage were certainly not sent at our rate."""
        if self._stretches < _DAMAGED_STRETCHES:
            return False
        packets = self._reads >= _READS and count <= _PACKET * self._reads
        return self._counted >= _DAMAGED * count or (packets and self._damaged_reads >= _DAMAGED_READS * self._reads)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Garbage:
    """What was heard since there was text."""

    heard: bytes  # the last of it
    count: int  # bytes, all of it
    lasted: float  # seconds
    at: float  # now
    well: bool  # text was read at this rate before it
    sparse: bool  # little of it, now and then, for so long that this is how the board talks
    proven: bool  # the driver missed so many stop bits that nobody sends at our rate

    @property
    def recent(self) -> bytes:
        """What rates are told from."""
        return self.heard[-_EVIDENCE_MOST:]

    @property
    def patient(self) -> bool:
        """True when it goes on so long that something has to be tried."""
        return self.count >= _PATIENT and self.lasted >= _PATIENT_S

    @property
    def replaces_text(self) -> bool:
        """True when it is no island: a rate that read well doesn't any more."""
        return (self.count >= _ENOUGH_WELL and self.lasted >= _ENOUGH_WELL_S) or (
            self.proven and self.count >= _ENOUGH_DAMAGED and self.lasted >= _ENOUGH_DAMAGED_S
        )

    @property
    def only_zeros(self) -> bool:
        return self.heard.count(0) > 0.97 * len(self.heard)


def _looks_random(heard: bytes) -> bool:
    """True when the bytes have no structure that tells of binary records or of another language at the right rate."""
    count = len(heard)
    high = sum(byte >> 7 for byte in heard)
    commonest = max(heard.count(bytes((byte,))) for byte in set(heard))
    return (
        b"\r\n" not in heard
        and text_share(heard) < 0.55
        and 0.2 * count < high < 0.85 * count
        and heard.count(0) < 0.15 * count
        and commonest < max(8, 0.19 * count)
    )


def _text_at_one_of_the_faster(heard: bytes, best: Guess) -> bool:
    """True when which of the faster rates it is may be open; that it is none of them, but text of any language at ours, is not."""
    cost = len(heard) * math.log(256) - best.order
    return best.order > 10 and own_rate_cost(heard) - cost > _MARGIN_FASTER and best.gain > -1.3


def _noise_or_text(heard: bytes, best: Guess) -> bool:
    """True for bytes that look like noise, where text at another rate explains them hardly worse."""
    noise = -_NOISE * max(len(heard), 100) * (1.0 if len(heard) < 300 else 1.6)
    return best.gain > -1.3 and best.order > noise and _looks_random(heard)


def _same(rate: int, other: int) -> bool:
    return abs(rate / other - 1) < 0.035


class RateSearch:
    """Which rate to try for the garbage that one port hears, and when. One wish at a time: nothing is asked for until
    :meth:`rate_set` or :meth:`not_answered` says what became of the last."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        #: the rate that what was heard last was certainly sent at; None when only text read at a rate tells, or nothing does
        self.inferred: int | None = None
        #: the rate that is wished for, and not yet set
        self.asked: int | None = None
        self.changed_at = float("-inf")
        self._evidence = bytearray()
        self._garbage = 0  # bytes, those that `_evidence` has dropped included
        self._garbage_from: float | None = None
        self._bursts = 0
        self._banner_at = float("-inf")
        self._next_look = _ENOUGH
        #: the rate that was looked from, where nothing was found that is better
        self._looked_up: int | None = None
        #: from above only zeros came: the sender is slower than that by far, hence no faster than the rate that was looked from
        self._is_slow = False
        self._refused: set[int] = set()
        self._unanswered: dict[int, int] = {}
        self._hops = 0
        self._damage = _Damage()
        #: a rate to return to and when, while something faster is looked for
        self._return: tuple[int, float] | None = None

    # --- what is heard ---------------------------------------------------------------------------------------------

    @property
    def suspects(self) -> bool:
        """True while garbage goes on, or a rate is asked for."""
        return self.asked is not None or self._garbage_from is not None

    def settling(self, at: float) -> bool:
        """True as long after a change of rate as bytes may arrive that were received before it."""
        return at - self.changed_at < _SETTLE_S

    def count_damaged(self, damaged: int, at: float, held: bool) -> None:
        """A read at `at`, after which the driver had counted `damaged` bytes without their stop bit; `held`: what came before is
        not told yet."""
        self._damage.read(damaged, at)
        if not held and self._garbage_from is None:
            self._damage.begin()

    def remember(self, data: bytes, at: float) -> None:
        """`data` was garbage, of no rate that is known."""
        if self.settling(at):
            return
        self._evidence += data
        self._garbage += len(data)
        del self._evidence[:-_EVIDENCE_MOST]

    def fell_silent(self) -> None:
        """The line fell silent after bytes that are not told yet."""
        self._bursts += 1

    def banner_came(self, at: float) -> None:
        """A boot ROM's banner arrived at `at`: what follows may be its text too."""
        self._banner_at = max(self._banner_at, at)
        self._damage.begin()

    def text_came(self, count: int, well: bool) -> None:
        """`count` bytes in a row were text. `well`: so many by now that the rate is the application's."""
        if count >= _TEXT:
            self._garbage_from = None
            self._damage.begin()
            if self._evidence:
                self._forget()
                self._next_look = _ENOUGH
        if well:
            self._return = None
            self._hops = 0
            self._looked_up = None
            self._is_slow = False

    def _forget(self) -> None:
        self._evidence.clear()
        self._garbage = self._bursts = 0
        self._damage.begin()

    # --- what becomes of a wish ------------------------------------------------------------------------------------

    def ask(self, rate: int, why: str) -> ChangeRate:
        """The wish for `rate`, which is waited for from now on."""
        self.asked = rate
        self._return = None
        self._hops += 1
        self._forget()
        # a board that no rate reads is looked at ever more rarely
        self._next_look = _ENOUGH * (1 if self._hops <= 4 else 8)
        return ChangeRate(rate, why)

    def not_answered(self) -> bool:
        """Bytes come: True when a rate is still asked for. It was never set, so the adapter refused it."""
        if self.asked is None:
            return False
        self._unanswered[self.asked] = self._unanswered.get(self.asked, 0) + 1
        looked = self.asked == self._top and self._looked_up is not None
        if looked or self._unanswered[self.asked] >= _TRIES:
            self._refused.add(self.asked)
            if looked:
                self._looked_up = None
        self.asked = self._return = None
        return True

    def rate_coming(self, rate: int) -> None:
        """The port is about to be at `rate`, by a wish or not; what is told until :meth:`rate_set` came at the old one."""
        if self.asked != rate:
            self._return = None
        self.asked = rate

    def rate_set(self, rate: int, at: float) -> None:
        self.asked = None
        self.rate = rate
        self._forget()
        self._next_look = _ENOUGH
        self.changed_at = at
        self._garbage_from = None

    @property
    def return_at(self) -> float | None:
        """When :meth:`due` has a rate to return to, unless text is read before."""
        return self._return[1] if self._return is not None else None

    def due(self, at: float) -> ChangeRate | None:
        """The way back from a look, or from a rate that was tried, when nothing was read there in time."""
        if self._return is None or at < self._return[1] or self.asked is not None:
            return None
        return self.ask(self._return[0], f"nothing that comes at {self.rate} baud can be read either")

    # --- the search ------------------------------------------------------------------------------------------------

    def may_ask(self, at: float) -> bool:
        """False while a wish is open, and while bytes may be of the rate before."""
        return self.asked is None and not self.settling(at)

    def wish(self, more: bytes, at: float, well: bool) -> ChangeRate | None:
        """Another rate, when the garbage remembered, and `more` that is not over yet, say so clearly. `well`: ours has read text.
        Only while :meth:`may_ask`."""
        garbage = self._gathered(more, at, well)
        if not self._is_time_to_look(garbage):
            return None
        if well and not garbage.replaces_text:
            self._next_look = garbage.count + _SOON
            return None
        if garbage.only_zeros:
            return self._look_below(garbage)
        found = self._rate_told(garbage)
        if found is None:
            return self._look_elsewhere(garbage)
        if garbage.count < _FEW and found.margin < _MARGIN_FEW:
            return None
        if self._may_be_rom(found, garbage):
            self._next_look = garbage.count + _SOON
            return None
        if self._may_be_another_faster(found) and not well and self._can_look_up():
            return self._look_from_above(f"the board sends faster than {self.rate} baud")
        return self._follow(found)

    def _gathered(self, more: bytes, at: float, well: bool) -> _Garbage:
        if self._garbage_from is None:
            self._garbage_from = at
        lasted = at - self._garbage_from
        count = self._garbage + len(more)
        seldom = count >= _SPARSE and self._bursts >= _SPARSE_BURSTS and lasted >= _SPARSE_S
        return _Garbage(
            heard=bytes(self._evidence) + more,
            count=count,
            lasted=lasted,
            at=at,
            well=well,
            sparse=seldom and not well and self._can_look_up(),
            proven=self._damage.proves(count),
        )

    def _is_time_to_look(self, garbage: _Garbage) -> bool:
        """Has so much come since the last look that another may tell more? Looks cost time: each waits for half as much again."""
        if garbage.count < self._next_look and not garbage.sparse:
            return False
        self._next_look = garbage.count + max(_SOON, garbage.count // 2)
        if self._next_look > _PATIENT and garbage.lasted < _PATIENT_S + 0.5:
            self._next_look = min(self._next_look, max(garbage.count + _SOON, _PATIENT))
        return True

    def _look_below(self, garbage: _Garbage) -> ChangeRate | None:
        """Are so many zeros a sender that is much slower? They say no more than that."""
        lower = 115200 if self.rate > 230400 else _LOW_RATE
        # from far above, the boot ROM's text is all zeros too, for a moment
        enough = 2 * _ENOUGH if self.rate <= 230400 or garbage.lasted >= 2 * _ROM_LASTS_S else _EVIDENCE_MOST * 8
        if garbage.well:
            speed = garbage.count / max(garbage.lasted, 0.001) * 10 / self.rate
            slow = garbage.lasted >= _ZEROS_WELL_S and speed < _ZEROS_SPEED
            enough = _ZEROS_WELL if slow else garbage.count + 1
        if lower >= self.rate or garbage.count < enough:
            return None
        self._is_slow = self.rate == self._top and self._looked_up == lower
        return self.ask(lower, "only zeros arrive: the board sends much slower")

    def _rate_told(self, garbage: _Garbage) -> Guess | None:
        """Which rate do the bytes tell of clearly?"""
        heard = garbage.recent
        found = wrong_rate(heard, self.rate)
        if found is None and not garbage.well and len(heard) > 2 * _LATEST:
            # a ROM at a rate of its own is no help: what came last may be the application alone
            found = wrong_rate(heard[-_LATEST:], self.rate)
        return found

    def _may_be_rom(self, found: Guess, garbage: _Garbage) -> bool:
        """May it be a boot ROM? That one falls silent by itself; an application that talks at its rate goes on."""
        if not _same(found.rate, ROM_RATE) or garbage.count >= _FOREIGN_AT_ROM_RATE * (2 if garbage.well else 1):
            return False
        return garbage.well or garbage.lasted < _ROM_LASTS_S or garbage.at - self._banner_at < ROM_OVER_S

    def _may_be_another_faster(self, found: Guess) -> bool:
        return found.rate > _MUCH_FASTER * self.rate and found.margin < _MARGIN_FASTER

    def _follow(self, found: Guess) -> ChangeRate | None:
        """To the rate that is told; from above, where it is so much faster that only this much is certain."""
        rate = found.rate
        self.inferred = rate if rate <= _LOOK_UP * self.rate else None
        if rate > _LOOK_UP * self.rate and self.rate < _TOP_RATE and _TOP_RATE not in self._refused:
            if self._looked_up == self.rate:
                return None
            return self._look_from_above(f"the board sends much faster than {self.rate} baud")
        if rate in self._refused:
            return None
        mixed = f"; {found.meant} meant for another crystal" if found.meant else ""
        return self.ask(rate, f"what arrived at {self.rate} baud was sent at {rate}{mixed}")

    # --- looks from above ------------------------------------------------------------------------------------------

    @property
    def _top(self) -> int:
        """The rate to look from above from: the highest that the adapter does."""
        return _TOP_RATE if _TOP_RATE not in self._refused else _TOP_RATE // 2

    def _can_look_up(self) -> bool:
        """Is there an above that this rate was not looked at from yet?"""
        return not (self._looked_up == self.rate or self._top in self._refused or self.rate >= self._top // 2)

    def _look_from_above(self, why: str) -> ChangeRate:
        self._looked_up = self.rate
        return self.ask(self._top, why)

    def _look_elsewhere(self, garbage: _Garbage) -> ChangeRate | None:
        """No rate is told: where might more be seen?"""
        home = self._looked_up
        if home is not None and self.rate == self._top != home and not garbage.well:
            return self._end_look(home, garbage) if garbage.patient else None
        if garbage.well:
            return self._look_from_well(garbage) if garbage.proven else None
        return self._look_up(garbage)

    def _look_from_well(self, garbage: _Garbage) -> ChangeRate | None:
        """A rate that read well is left for a look only when the driver has proven that nobody sends at it any more: binary
        records at the right rate have their stop bits."""
        if not self._can_look_up():
            return None
        home = self.rate
        look = self._look_from_above(f"bytes arrive damaged at {home} baud: the board sends faster")
        self._return = (home, garbage.at + _LOOK_S)
        return look

    def _look_up(self, garbage: _Garbage) -> ChangeRate | None:
        """Near random bytes may be text at many times our rate: seen once from above, where nothing is lost."""
        heard = garbage.recent
        if len(heard) < _ENOUGH_RANDOM and not garbage.sparse:
            return None
        best = guess(heard, self.rate)
        if best is None:
            return None
        if garbage.patient and self._is_clearly_close(best):
            return self._follow(best)
        if garbage.patient and self._is_slow and self._looked_up == self.rate:
            slower = guess(heard, self.rate, faster=False)
            if slower is None or slower.margin < _CLEARLY_SLOWER * slower.received or _same(slower.rate, self.rate):
                return None
            return self._follow(slower)
        likely = _text_at_one_of_the_faster(heard, best)
        if not self._can_look_up():
            refused = self._top in self._refused
            return self._follow(best) if garbage.patient and likely and best.margin > 10 and refused else None
        if garbage.patient and best.order > -0.3 * len(heard) and text_share(heard) < 0.8:
            return self._look_from_above(f"nothing that comes at {self.rate} baud can be read")
        if best.rate >= _MUCH_FASTER * self.rate and (likely or _noise_or_text(heard, best)):
            return self._look_from_above(f"the board may send much faster than {self.rate} baud")
        return None

    def _is_clearly_close(self, best: Guess) -> bool:
        """Is text clearly likelier at a rate close to ours?"""
        ratio = best.rate / self.rate
        return 0.84 < ratio < 1.19 and ratio != 1 and best.margin > _CLOSE_MARGIN * best.received

    def _end_look(self, home: int, garbage: _Garbage) -> ChangeRate | None:
        """Nothing could be read from above either, nor told clearly: text unlike what the tables were made of is still likelier at
        its own rate than at any other, so that one is tried for as long again; else back `home`."""
        best = guess(garbage.recent, self.rate, own=False)
        likeliest = best is not None and best.margin >= _MARGIN_TRIED and not _same(best.rate, home)
        if best is not None and likeliest and best.rate not in self._refused:
            tried = self.ask(best.rate, f"what arrived at {self.rate} baud was most likely sent at {best.rate}")
            self._return = (home, garbage.at + max(_LOOK_S, garbage.lasted))
            return tried
        if garbage.lasted >= _LOOK_MOST_S:
            return self.ask(home, f"nothing that comes at {self.rate} baud can be read either")
        return None
