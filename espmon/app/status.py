"""What `espmon status` shows of a board's present, as JSON values."""

from __future__ import annotations

import time
from typing import Any

import espmon.events as ev
from espmon.app.watch import Watch


def board_status(watch: Watch, problem: str | None) -> dict[str, Any]:
    """Everything that is known of it now; `problem`: what keeps it from being watched as configured, in words."""
    policy, restraint, log = watch.policy, watch.policy.restraint, watch.log
    last = watch.last_reset
    incident = policy.incident
    return {
        "state": watch.state,
        "device": watch.device,
        "since": ev.iso_time(watch.since),
        "baud": watch.port.baud if watch.port else watch.rate.baud,
        "holder": watch.holder,
        "writer": watch.writer.who if watch.writer else None,
        "attached": [a.who for a in watch.attached],
        "problem": problem or watch.problem,
        "bytes": watch.bytes,
        "last_heard": ev.iso_time(watch.last_heard),
        "last_reset": ev.to_json_object(last) if last else None,
        "up_since": ev.iso_time(watch.healthy_since),
        "log": {
            "segment": str(log.segment.raw_path) if log.segment else None,
            "stored": log.bytes_stored,
            "waiting": log.waiting,
            "lost": log.bytes_lost,
            "full": log.full,
        },
        "recovery": {
            "mode": policy.settings.mode,
            "image": policy.settings.image,
            "incident": incident.id if incident else None,
            "running": incident.running if incident else None,
            "locked": restraint.locked,
            "quiet_until": ev.iso_time(restraint.quiet_until) if restraint.quiet_until > time.time() else None,
        },
    }
