"""A crash on a terminal: a panel, drawn with rich. Imported when the first crash is shown."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from espmon.events import Crash
from espmon.sinks.neutral import one_line
from espmon.sinks.screen import Screen
from espmon.sinks.words import (
    POSSIBLE_FRAMES,
    SURE_FRAMES,
    SourceLines,
    alloc_words,
    crash_subtitle,
    crash_title,
    elf_words,
    function_words,
    main_registers,
    message_words,
    place_words,
    split_frames,
    stated_place,
    why_no_frames,
)


def crash_panel(crash: Crash, source: SourceLines, screen: Screen, has_elf: bool, roots: Sequence[str]) -> str:
    """The panel as text for `screen`, control sequences included. Paths below one of `roots` are relative to it."""
    width = min(screen.width, 120)
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        force_terminal=True,
        color_system="standard" if screen.colour else None,
        no_color=not screen.colour,
        width=width,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
        _environ={},
    )
    title = Text(f" {crash_title(crash)} ", style="bold")
    subtitle = crash_subtitle(crash)
    panel = Panel(
        _body(crash, source, width - 4, has_elf, roots),
        title=title,
        title_align="left",
        subtitle=Text(f" {subtitle} ", style="dim") if subtitle else None,
        subtitle_align="right",
        border_style="red",
        box=box.ROUNDED if screen.unicode else box.ASCII,
        padding=(0, 1),
        width=width,
    )
    console.print(panel)
    return buffer.getvalue()


def _frame_table(names: int) -> Table:
    """One look for all frames, so that those above and below a quoted line stand in the same columns."""
    table = Table.grid(padding=(0, 0))
    table.add_column(width=2)
    table.add_column(width=names - 2, overflow="fold")
    table.add_column(width=2)
    table.add_column(overflow="fold", style="cyan")
    return table


def _body(crash: Crash, source: SourceLines, width: int, has_elf: bool, roots: Sequence[str]) -> Group:
    parts: list[RenderableType] = []

    def gap() -> None:
        if parts:
            parts.append(Text(""))

    if message := message_words(crash):
        parts.append(Text(message, style="bold"))
    if place := stated_place(crash):
        parts.append(Text(place))
    if crash.explanation:
        parts.append(Text(one_line(crash.explanation, 600)))

    sure, possible = split_frames(crash.frames)
    quoted = next((f for f in sure if (f.file or "", f.line or 0) in source), None)
    shown = [f for f in sure[:SURE_FRAMES] + possible[:POSSIBLE_FRAMES] if f.function or f.file]
    longest = max((len(function_words(f)) + (8 if f.inlined else 0) for f in shown), default=0) + 2
    names = min(longest, width * 11 // 20)
    room = width - names - 2
    for heading, frames, limit in (
        ("Where", sure, SURE_FRAMES),
        ("Perhaps on the way there (found on the stack)", possible, POSSIBLE_FRAMES),
    ):
        if not frames:
            continue
        gap()
        parts.append(Text(heading, style="bold"))
        table = _frame_table(names)
        faint = "dim" if frames is possible else ""
        bare: list[str] = []

        def end_of_bare(bare: list[str] = bare) -> None:
            if bare:
                parts.append(Padding(Text(" ".join(bare), style="dim"), (0, 0, 0, 2)))
                bare.clear()

        for number, frame in enumerate(frames[:limit]):
            if not frame.function and not frame.file:  # only an address: several share a line
                if table.row_count:
                    parts.append(table)
                    table = _frame_table(names)
                bare.append(str(frame.address))
                continue
            end_of_bare()
            first = number == 0 and frames is sure
            name = Text(function_words(frame), style="bold" if first else faint)
            if frame.inlined:
                name.append(" inlined", style="not bold dim")
            place = place_words(frame, room - 6, roots)
            if not place:
                place = f"{frame.address}{' ROM' if frame.module == 'rom' else ''}"
            table.add_row("→ " if first else "  ", name, "", Text(place, style=faint))
            if frame is quoted:
                parts.append(table)
                line = Text(f"    {frame.line} │ ", style="dim")
                line.append(one_line(source[(frame.file or "", frame.line or 0)].strip(), width - 12), style="not dim")
                parts.append(line)
                table = _frame_table(names)
        end_of_bare()
        if table.row_count:
            parts.append(table)
        if len(frames) > limit:
            parts.append(Text(f"  ... {len(frames) - limit} more", style="dim"))
    if note := why_no_frames(crash, has_elf):
        gap()
        parts.append(Text(note, style="yellow"))
    if crash.last_failed_alloc is not None:
        gap()
        words = alloc_words(crash)
        parts.append(Text(words[0].upper() + words[1:] + "."))
    if crash.remedies:
        gap()
        parts.append(Text("Try", style="bold"))
        steps = Table.grid(padding=(0, 1))
        steps.add_column()
        steps.add_column(overflow="fold")
        remedies = crash.remedies[:4]
        for number, remedy in enumerate(remedies, 1):
            steps.add_row(Text(f"{number}." if len(remedies) > 1 else "-"), Text(one_line(remedy)))
        parts.append(Padding(steps, (0, 0, 0, 2)))
    footer: list[Text] = []
    if registers := main_registers(crash):
        footer.append(Text("   ".join(f"{name}\u00a0{value}" for name, value in registers), style="dim"))
    if not crash.complete:
        footer.append(Text("The dump is incomplete.", style="yellow"))
    if elf := elf_words(crash, roots):
        footer.append(Text(elf[1], style={"bad": "bold red", "good": "green"}.get(elf[0], "dim")))
    if footer:
        gap()
        parts += footer
    if not parts:
        parts.append(Text("The text says no more than that."))
    return Group(*parts)
