"""Flasher stub payloads, read as data from an installed esptool package; nothing of it is imported or run on the host.

Of its two sets only ``targets/stub_flasher/2`` is used: dual licensed, Apache-2.0 or MIT. Found through
importlib.metadata, so it works wherever pip put it, and costs nothing where it isn't installed.
"""

from __future__ import annotations

import base64
import binascii
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from espmon.bootloader.loader import StubPayload

_FOLDER = "esptool/targets/stub_flasher/2"
# No chip has more RAM for it; a larger file is none of theirs.
_LARGEST = 256 * 1024


def find_stubs(names: tuple[str, ...] | None = None) -> dict[str, StubPayload]:
    """Payloads by chip name (``esp8266``, ``esp32p4-rev1``); empty when no esptool 5.3 or later is installed.

    A file that cannot be read or is no payload is left out.
    """
    folder = stub_folder()
    if folder is None:
        return {}
    found: dict[str, StubPayload] = {}
    for path in sorted(folder.glob("*.json")):
        if names is not None and path.stem not in names:
            continue
        payload = _read(path)
        if payload is not None:
            found[path.stem] = payload
    return found


def stub_folder() -> Path | None:
    """Where the payloads are, or None."""
    try:
        folder = Path(str(metadata.distribution("esptool").locate_file(_FOLDER)))
    except metadata.PackageNotFoundError:
        return None
    return folder if folder.is_dir() else None


def _read(path: Path) -> StubPayload | None:
    try:
        if path.stat().st_size > _LARGEST:
            return None
        return parse_payload(path.stem, json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, RecursionError):
        return None


def parse_payload(name: str, content: Any) -> StubPayload | None:
    """The payload in a decoded JSON file, None when something in it is missing or absurd."""
    if not isinstance(content, dict):
        return None
    try:
        text = base64.b64decode(content["text"], validate=True)
        data = base64.b64decode(content.get("data") or "", validate=True)
        entry, text_start = content["entry"], content["text_start"]
        data_start = content.get("data_start") or 0
    except (KeyError, TypeError, ValueError, binascii.Error):
        return None
    if not text or not all(isinstance(a, int) and 0 <= a < 1 << 32 for a in (entry, text_start, data_start)):
        return None
    return StubPayload(name=name, entry=entry, text=text, text_start=text_start, data=data, data_start=data_start)
