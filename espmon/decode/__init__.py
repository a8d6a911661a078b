"""Level 2, pure: bytes -> events."""
