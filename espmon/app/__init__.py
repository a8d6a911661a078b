"""Level 4: monitor (one port), supervisor (all ports), recovery policy, config, control socket."""
