"""Shell patterns on paths: ``*`` and ``?`` stay within one segment, ``[a-z]`` is a set.

Matched without regular expressions, in time bounded by the product of both lengths, because the
pattern comes from the package.
"""

from __future__ import annotations

from typing import NamedTuple


def matches(pattern: str, path: str) -> bool:
    """Whether ``path`` fits ``pattern`` as a whole. A malformed pattern fits nothing."""
    segments, wanted = path.split("/"), pattern.split("/")
    return len(segments) == len(wanted) and all(
        _matches_segment(_tokens(want), segment)
        for want, segment in zip(wanted, segments, strict=True)
    )


class _Token(NamedTuple):
    """One thing that a pattern asks for: a character, a set, any one, or (``star``) any number."""

    star: bool
    ranges: tuple[tuple[str, str], ...] = ()
    negated: bool = False

    def fits(self, character: str) -> bool:
        return any(low <= character <= high for low, high in self.ranges) != self.negated


_STAR = _Token(star=True)
_ANY = _Token(star=False, negated=True)
_NEVER = _Token(star=False)


def _tokens(pattern: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*":
            tokens.append(_STAR)
        elif character == "?":
            tokens.append(_ANY)
        elif character == "[":
            token, at = _set(pattern, at)
            tokens.append(token)
        else:
            if character == "\\" and at < len(pattern):
                character, at = pattern[at], at + 1
            tokens.append(_Token(star=False, ranges=((character, character),)))
    return tokens


def _set(pattern: str, at: int) -> tuple[_Token, int]:
    """The set that begins at ``at``, and where it ends."""
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[tuple[str, str]] = []
    while at < len(pattern) and (pattern[at] != "]" or not ranges):
        at += pattern[at] == "\\"
        low = high = pattern[at : at + 1]
        at += 1
        if pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] not in ("", "]"):
            high, at = pattern[at + 1], at + 2
        ranges.append((low, high))
    if at >= len(pattern):
        return _NEVER, len(pattern)
    return _Token(star=False, ranges=tuple(ranges), negated=negated), at + 1


def _matches_segment(tokens: list[_Token], segment: str) -> bool:
    """Greedy matching that only ever goes back to the last star."""
    token = at = 0
    star, resume = -1, 0
    while at < len(segment):
        if token < len(tokens) and tokens[token].star:
            star, resume, token = token, at, token + 1
        elif token < len(tokens) and tokens[token].fits(segment[at]):
            token, at = token + 1, at + 1
        elif star >= 0:
            resume += 1
            token, at = star + 1, resume
        else:
            return False
    return all(left.star for left in tokens[token:])
