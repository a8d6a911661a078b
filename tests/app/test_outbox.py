"""The queue between port and screen: order, bounds, and who waits for whom."""

import threading
import time

from espmon.app.outbox import BOUND_FACTS, Outbox
from espmon.events import Boot, Gap, LimitReached, Text


def take_all(outbox):
    items = []
    while True:
        _, more = outbox.take(0)
        if not more:
            return items
        items += more


def test_items_come_in_order_and_wishes_overtake():
    outbox = Outbox()
    outbox.put([Text(raw=b"a"), Boot(), Text(raw=b"b")])
    outbox.wish("quit")
    wishes, items = outbox.take(0)
    assert wishes == ("quit",)
    assert [type(item) for item in items] == [Text, Boot, Text]
    assert outbox.take(0) == ((), [])


def test_a_screen_that_stands_still_loses_text_but_no_fact_and_is_told():
    outbox = Outbox(bound=1000)
    begun = time.monotonic()
    for _ in range(100):
        outbox.put([Text(raw=b"x" * 100), Boot()])
    assert time.monotonic() - begun < 20  # one wait, not a hundred
    items = take_all(outbox)
    assert sum(isinstance(item, Boot) for item in items) == 100
    kept = sum(len(item.raw) for item in items if isinstance(item, Text))
    gone = sum(item.bytes for item in items if isinstance(item, Gap))
    assert kept + gone == 10_000
    assert kept <= 1000


def test_a_nudge_while_the_reader_is_busy_is_not_lost():
    outbox = Outbox()
    outbox.nudge()
    woken = threading.Event()

    def reader():
        outbox.take(None)
        woken.set()

    threading.Thread(target=reader, daemon=True).start()
    assert woken.wait(10)
    begun = time.monotonic()
    outbox.take(0.05)  # once only
    assert time.monotonic() - begun >= 0.04


def test_facts_have_a_bound_too():
    outbox = Outbox()
    outbox.put(Boot() for _ in range(BOUND_FACTS + 500))
    items = take_all(outbox)
    assert len(items) <= BOUND_FACTS + 10
    assert isinstance(items[-1], LimitReached)


def test_a_slow_screen_loses_nothing():
    outbox = Outbox(bound=10_000)
    sent = [b"%06d" % number + b"." * 500 for number in range(200)]

    def port():
        for raw in sent:
            outbox.put([Text(raw=raw)])
        outbox.wish("end")

    thread = threading.Thread(target=port)
    thread.start()
    got = []
    ended, items = False, []
    while not ended or items:
        wishes, items = outbox.take(5)
        ended = ended or "end" in wishes
        got += items
        time.sleep(0.001)
    thread.join()
    assert [item.raw for item in got] == sent


def test_a_nudge_and_a_wish_end_a_wait():
    outbox = Outbox()
    for wake in (outbox.nudge, lambda: outbox.wish("x"), lambda: outbox.wish_from_signal("y")):
        threading.Timer(0.05, wake).start()
        begun = time.monotonic()
        outbox.take(30)
        assert time.monotonic() - begun < 20
