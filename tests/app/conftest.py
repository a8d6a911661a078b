"""A board on a pseudo terminal and the monitor that watches it, each ended with its test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.fakes.watched_pty import PtyBoard


@pytest.fixture
def board(tmp_path: Path) -> Iterator[PtyBoard]:
    from tests.fakes.watched_pty import PtyBoard

    board = PtyBoard(tmp_path / "board")
    yield board
    board.unplug()


@pytest.fixture
def espmon(board: PtyBoard) -> Iterator[Any]:
    """Starts `espmon BOARD` with the words given, and waits until it has the port."""
    from tests.fakes.watched_pty import Espmon

    running = []

    def start(*args: str, **options: Any) -> Espmon:
        each = Espmon(board.name, *args, **options)
        running.append(each)
        each.wait_for("115200" if "--json" not in args else '"opened"')
        return each

    yield start
    for each in running:
        each.close()
