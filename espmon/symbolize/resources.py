"""Where the package's own tables lie: ``symbols/`` (boot ROM tables, the demo firmware).

Installed, they are package files (``espmon/symbols``); in a checkout they are the top-level folder ``symbols``.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def symbols_dir() -> Path:
    """The folder of ROM tables and demo firmware. Installed files win over a checkout's.

    Always a path; when neither exists (a damaged installation) it is the checkout's, and reading from it finds nothing.
    """
    package = Path(__file__).resolve().parent.parent
    installed = package / "symbols"
    return installed if installed.is_dir() else package.parent / "symbols"
