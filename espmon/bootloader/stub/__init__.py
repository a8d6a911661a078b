"""espmon's own flasher stub for the ESP8266: its payload, its protocol and the client that speaks it.

The C source, the linker script and the Makefile lie beside this file; docs/design/stub.md has the reasons.
"""

from __future__ import annotations
