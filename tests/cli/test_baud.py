from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from espmon.cli import cli
from espmon.cli import main as run_main


@pytest.mark.parametrize("rate", [9600, 57600, 115200, 921600])
def test_the_rate_of_a_board(rate: int) -> None:
    result = CliRunner().invoke(cli, ["baud", "--json", "--timeout", "15", f"sim://esp8266?baud={rate}&pace=0.2"])
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["baud"], found["sure"]) == (rate, True)
    assert len(found["steps"]) <= 3


def test_silence_is_an_answer_of_its_own(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as ended:
        run_main(["baud", "--timeout", "0.3", "loop://"])
    assert ended.value.code == 26
    assert "nothing arrived" in capsys.readouterr().err


@pytest.mark.parametrize("start", [115200, 74880])
def test_a_boot_rom_is_no_answer(start: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Its 74880 baud say nothing of the application, whether they were read in garbage or as text."""
    with pytest.raises(SystemExit) as ended:
        run_main(["baud", "--from", str(start), "--timeout", "2", "sim://esp8266?app=silent"])
    assert ended.value.code == 26
    told = capsys.readouterr().err
    assert "only the boot ROM was heard, at 74880 baud" in told
    assert "[rate-not-found]" in told


def test_the_application_counts_that_follows_a_boot_rom() -> None:
    result = CliRunner().invoke(cli, ["baud", "--json", "--from", "74880", "--timeout", "15", "sim://esp8266?baud=115200&pace=0.2"])
    found = json.loads(result.stdout)
    assert (found["baud"], found["sure"], found["rom_baud"]) == (115200, True, 74880)
