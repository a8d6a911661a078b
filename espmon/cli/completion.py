"""``espmon completion SHELL``: the script that makes a shell complete commands, options and ports."""

from __future__ import annotations

import os
import shlex

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class

from espmon.errors import UsageProblem

_HOW = {
    "bash": 'Put this into ~/.bashrc:  eval "$(espmon completion bash)"',
    "zsh": 'Put this into ~/.zshrc after compinit:  eval "$(espmon completion zsh)"',
    "fish": "Run this once:  espmon completion fish > ~/.config/fish/completions/espmon.fish",
    "powershell": "Put this into $PROFILE:  espmon completion powershell | Out-String | Invoke-Expression",
}

# Older clicks know no PowerShell. The protocol: two variables go in, lines `value TAB help` come out.
_POWERSHELL = """\
Register-ArgumentCompleter -Native -CommandName espmon -ScriptBlock {
    param($word, $line, $cursor)
    $env:COMP_WORDS = $line.ToString()
    $env:COMP_CURRENT = $word
    $env:_ESPMON_COMPLETE = 'espmonps_complete'
    try {
        espmon | ForEach-Object {
            $value, $help = $_ -split "`t", 2
            if (-not $help) { $help = $value }
            [System.Management.Automation.CompletionResult]::new($value, $value, 'ParameterValue', $help)
        }
    } finally {
        Remove-Item Env:COMP_WORDS, Env:COMP_CURRENT, Env:_ESPMON_COMPLETE -ErrorAction SilentlyContinue
    }
}
"""


@add_completion_class
class PowerShell(ShellComplete):
    """Our side of that protocol."""

    name = "espmonps"
    source_template = _POWERSHELL

    def get_completion_args(self) -> tuple[list[str], str]:
        incomplete = os.environ.get("COMP_CURRENT", "")
        lexer = shlex.shlex(os.environ.get("COMP_WORDS", ""), posix=False)  # backslashes are no escapes there
        lexer.whitespace_split = True
        lexer.commenters = ""
        try:
            words = [word.strip("\"'") for word in lexer]
        except ValueError:  # an open quote
            words = os.environ.get("COMP_WORDS", "").split()
        words = words[1:]
        if incomplete and words and words[-1] == incomplete:
            words.pop()
        return words, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.value}\t{item.help or ''}"


@click.command()
@click.argument("shell", type=click.Choice(list(_HOW)))
def completion(shell: str) -> None:
    """Print the completion script for your shell.

    \b
    bash        eval "$(espmon completion bash)"      in ~/.bashrc
    zsh         eval "$(espmon completion zsh)"       in ~/.zshrc, after compinit
    fish        espmon completion fish > ~/.config/fish/completions/espmon.fish
    powershell  espmon completion powershell | Out-String | Invoke-Expression      in $PROFILE
    """
    if shell == "powershell":
        click.echo(_POWERSHELL, nl=False)
        return
    from click.shell_completion import get_completion_class

    from espmon.cli import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise UsageProblem(f"this version of click can't complete for {shell}", "Update click.")
    click.echo(kind(cli, {}, "espmon", "_ESPMON_COMPLETE").source())
