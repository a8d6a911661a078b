"""Level 2, pure: bytes -> events. :class:`Decoder` is the whole of it; formats are in :mod:`espmon.decode.formats`."""

from espmon.decode.decoder import Decoder

__all__ = ["Decoder"]
