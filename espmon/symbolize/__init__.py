"""Level 3: addresses -> functions, files and lines; ELF identity, index, unwinding, ROM tables."""

from espmon.symbolize.symbolizer import Symbolizer

__all__ = ["Symbolizer"]
