"""Level 2, pure: SLIP, packets, image headers; operations as Steps (generators of Actions)."""
