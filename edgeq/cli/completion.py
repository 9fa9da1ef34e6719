"""`edgeq completion`: what has a shell complete commands, options and names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what has a shell complete commands, options and names.

    Such as: source <(edgeq completion bash). In docs/terminal.md stands in which file each shell finds it by itself.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    # Not `source`, which asks the bash that is installed for its version: this may be for another machine.
    script = kind(ctx.find_root().command, {}, "edgeq", "_EDGEQ_COMPLETE")
    print((script.source_template % script.source_vars()).strip())
