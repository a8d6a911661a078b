"""Level 3: the virtual board behind sim://: UART, boot ROM, loader, flash, faults."""
