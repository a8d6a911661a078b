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
