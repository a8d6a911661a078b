"""Level 3: addresses -> functions, files and lines; ELF identity, index, unwinding, ROM tables."""
