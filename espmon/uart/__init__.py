"""Level 2, pure: the physics of a UART line: rate inference, and text that was received at another rate."""
