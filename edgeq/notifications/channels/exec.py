"""Channel `exec`: a program of one's own gets the notification as JSON on standard input.

Its exit status says what came of it: 0 is sent; 75 (EX_TEMPFAIL) that the target can't be reached at present, so that
the channel waits and no attempt is counted; anything else, and a program that takes too long, is a failed attempt. A
program that is gone, or may not be run, makes the channel wait, too.
"""

from __future__ import annotations

import os
import shutil
from typing import Annotated

from ...config.checks import some
from ...units import Duration
from ..notification import Notification
from .channel import Channel, ChannelSettings, Links, Outcome, Retry, Sent
from .line import Timeout
from .program import Ended, last_line, run

TEMPORARY_FAILURE = os.EX_TEMPFAIL

_WORDS_CHARACTERS_MAX = 300
# What a program gets of edgeq's own environment, which may hold secrets.
_ENVIRONMENT = ("HOME", "LANG", "LC_ALL", "LOGNAME", "TZ", "USER")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _command(words: list[str]) -> None:
    if any("\0" in word for word in words):
        raise ValueError("must not hold the character NUL")
    program = words[0]
    if "/" in program and not os.path.isabs(program):
        raise ValueError("must begin with the whole path of a program, or with the name of one in the usual folders")
    if shutil.which(program, path=_PATH) is None:
        if os.path.isfile(program):
            raise ValueError(f"must begin with a program that edgeq may execute: {program} (try chmod +x)")
        raise ValueError(f"must begin with a program that is there: {program}")


class ExecSettings(ChannelSettings, frozen=True, kw_only=True):
    """`channels.*` of kind `exec`. `command` is the program and its arguments."""

    command: Annotated[list[str], some, _command]
    timeout: Timeout = Duration(30)


class ExecChannel(Channel):
    """Runs the program once for each notification, in the folder /, with a small environment."""

    kind = "exec"
    settings = ExecSettings

    def __init__(self, name: str, settings: ExecSettings, links: Links) -> None:
        super().__init__(name, settings, links)
        self._settings = settings

    async def send(self, notification: Notification) -> Outcome:
        """See Channel.send."""
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        program, *arguments = self._settings.command
        return await run(
            [shutil.which(program, path=_PATH) or program, *arguments],
            notification.as_json() + b"\n",
            _outcome,
            timeout_seconds=self._settings.timeout,
            environment={**environment, "PATH": _PATH},
        )


def _outcome(ended: Ended) -> Outcome:
    if ended.status == 0:
        return Sent(answer=last_line(ended.out)[:_WORDS_CHARACTERS_MAX])
    how = f"exit status {ended.status}" if ended.status > 0 else f"ended by signal {-ended.status}"
    words = ended.last_words[:_WORDS_CHARACTERS_MAX]
    return Retry(f"{how}: {words}" if words else how, target_down=ended.status == TEMPORARY_FAILURE)
