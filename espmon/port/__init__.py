"""Level 3: the only user of pyserial: identity, opening without reset, the worker that owns a port."""
