"""A word that somebody may have meant."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`did you mean 'topic'?` for the choice nearest to `word`; else what there is to choose from, or nothing."""
    import difflib  # only a mistake pays for it

    known = list(choices)
    lowered = {choice.lower(): choice for choice in known}
    close = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    if close:
        return f"did you mean {lowered[close[0]]!r}?"
    return f"there is: {', '.join(known)}" if known else ""
