"""``espmon ports``: which serial ports there are, what is on them, and who has them open."""

from __future__ import annotations

import json
from typing import Any

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per port.")
def ports(as_json: bool) -> None:
    """List the serial ports and what is on them."""
    from espmon.port import holders, list_ports
    from espmon.sinks.neutral import one_line

    listed = list_ports()
    rows: list[dict[str, Any]] = []
    for port in listed:
        held = holders(port.device)
        rows.append(
            {
                "port": port.device,
                "adapter": port.adapter,
                "description": port.description,
                "usb_id": port.usb_id,
                "serial_number": port.serial_number,
                "location": port.location,
                "mac": port.mac,
                "held_by": [{"pid": each.pid, "name": each.name} for each in held],
            }
        )
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    if not rows:
        click.echo("No serial port found. Is the cable a data cable, and the adapter's driver installed?", err=True)
        return
    table = []
    for row in rows:
        what = row["adapter"] or row["description"] or "serial port"
        facts = [f"usb {row['usb_id']}"] if row["usb_id"] else []
        facts += [f"serial number {row['serial_number']}"] if row["serial_number"] else []
        facts += [f"at {row['location']}"] if row["location"] else []
        if row["held_by"]:
            names = ", ".join(f"{each['name'] or 'a program'} (pid {each['pid']})" for each in row["held_by"])
            facts.append(f"in use by {names}")
        table.append((one_line(row["port"]), one_line(what, 40), one_line(", ".join(facts))))
    first = max(len(row[0]) for row in table)
    second = max(len(row[1]) for row in table)
    for device, what, facts_text in table:
        click.echo(f"{device:<{first}}  {what:<{second}}  {facts_text}".rstrip())
