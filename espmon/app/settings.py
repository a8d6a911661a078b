"""What the configuration says, as the settings of recovery policies and raw logs."""

from __future__ import annotations

from espmon.app.config import Config, Section
from espmon.app.recovery import PolicySettings
from espmon.store.portlog import LogLimits


def policy_settings(config: Config, section: Section, image: str | None) -> PolicySettings:
    """The recovery settings of one board."""
    r = config.recovery
    return PolicySettings(
        mode=section.recover,
        resets=r.resets,
        within_s=r.within_s,
        healthy_after_s=r.healthy_after_s,
        alive_s=r.alive_s,
        per_hour=r.per_hour,
        pauses_s=tuple(r.pauses_s),
        power_cycle=section.power_cycle is not None,
        erase_parameters=section.erase_parameters,
        image=image,
    )


def log_limits(config: Config) -> LogLimits:
    """The raw logs' bounds."""
    s = config.log
    return LogLimits(
        segment_bytes=s.segment_bytes,
        segment_s=s.segment_s,
        keep_bytes=s.keep_bytes,
        keep_s=s.keep_days * 86_400,
        keep_bytes_total=s.keep_bytes_total,
        low_water=s.low_water,
        sync_s=s.sync_s,
        compress=s.compress,
    )
