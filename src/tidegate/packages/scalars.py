"""What the text of a scalar means: YAML 1.2's core schema, and the timestamps of a manifest.

``yes`` and ``on`` are text here unless the field is a typed boolean (spec/plugin/08 section 8).
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation

from tidegate.packages.yaml_nodes import Scalar

Plain = str | int | float | bool | None

_NULLS = {"", "~", "null", "Null", "NULL"}
_BOOLEANS = {
    "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_TYPED_BOOLEANS = {
    "y": True, "Y": True, "yes": True, "on": True,
    "n": False, "N": False, "no": False, "off": False,
}  # fmt: skip
_INTEGER = re.compile(r"[-+]?(?:0x[0-9a-fA-F]+|0o?[0-7]+|0b[01]+|0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_TIME = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{1,2}-[0-9]{1,2})"
    r"(?:(?:[Tt]|[ \t]+)(?P<clock>[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2})(?:\.(?P<fraction>[0-9]+))?"
    r"[ \t]*(?P<zone>[Zz]|[-+][0-9]{1,2}(?::?[0-9]{2})?)?)?"
)
# A longer number is no number of a declaration, and int() takes quadratic time for it.
_LONGEST_NUMBER = 400
NO_TIME = "0001-01-01T00:00:00Z"


def is_null(node: Scalar) -> bool:
    """Whether a scalar stands for "nothing": ``~``, ``null`` or empty, without quotes."""
    return (node.plain and not node.tag and node.text in _NULLS) or node.tag == "null"


def resolve(node: Scalar) -> Plain:
    """The value of a scalar where no schema says what it is. ValueError for inf and nan."""
    if node.tag == "str" or not (node.plain or node.tag):
        return node.text
    if is_null(node):
        return None
    if node.text in _BOOLEANS:
        return _BOOLEANS[node.text]
    number = number_of(node.text)
    if number is not None:
        return number
    return time_of(node.text) or node.text


def boolean_of(node: Scalar) -> bool:
    """A typed boolean, which takes YAML 1.1's words as well. ValueError when it is none."""
    if node.plain and node.text in _BOOLEANS:
        return _BOOLEANS[node.text]
    if node.text in _TYPED_BOOLEANS:
        return _TYPED_BOOLEANS[node.text]
    raise ValueError("takes true or false")


def number_of(text: str) -> int | float | None:
    """A number, or None when ``text`` is none. Whole floats become integers, as in JSON by Go."""
    # YAML 1.1's way of writing large numbers, which the reference's reader takes.
    text = text.replace("_", "")
    if not text or len(text) > _LONGEST_NUMBER:
        return None
    if _INTEGER.fullmatch(text):
        value = _integer(text)
        # What Go's reader can hold as an integer; beyond it, it reads a float.
        if -(1 << 63) <= value < 1 << 64:
            return value
    if _FLOAT.fullmatch(text):
        return _shortest(float(text))
    if text.lower().lstrip("+-") in (".inf", ".nan"):
        raise ValueError("takes a number that JSON knows")
    return None


def _integer(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    # A leading zero alone means octal to the reference's reader, too.
    if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
        return sign * int(digits, 8)
    return sign * int(digits, 0)


def _shortest(value: float) -> int | float:
    if not math.isfinite(value):
        raise ValueError("takes a number that JSON knows")
    # 1e21 is where JavaScript and Go begin to write exponents.
    return int(value) if value.is_integer() and abs(value) < 1e21 else value


def decimal_of(text: str) -> str:
    """A decimal number as normalised text without exponent. ValueError when it is none."""
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        raise ValueError("takes a decimal number") from None
    # The exponent decides how long the text becomes.
    if not value.is_finite() or abs(value.adjusted()) > 100:
        raise ValueError("takes a decimal number")
    shown = format(value, "f")
    shown = shown.rstrip("0").rstrip(".") if "." in shown else shown
    return "0" if shown in ("-0", "") else shown


def time_of(text: str) -> str | None:
    """A timestamp as RFC 3339 with the digits of its fraction; None when ``text`` is none."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    try:
        year, month, day = map(int, match["date"].split("-"))
        hour, minute, second = map(int, (match["clock"] or "0:0:0").split(":"))
        zone = _zone(match["zone"] or "Z")
        moment = datetime(year, month, day, hour, minute, second, tzinfo=zone)
    except ValueError:
        return None
    fraction = (match["fraction"] or "")[:9].rstrip("0")
    stamp = moment.strftime("%m-%dT%H:%M:%S") + (f".{fraction}" if fraction else "")
    offset = moment.strftime("%z")
    shown = f"{offset[:3]}:{offset[3:]}" if moment.utcoffset() else "Z"
    return f"{moment.year:04d}-{stamp}{shown}"


def _zone(text: str) -> timezone:
    if text in "Zz":
        return UTC
    hours, _, minutes = text[1:].partition(":")
    if len(hours) == 4:
        hours, minutes = hours[:2], hours[2:]
    away = timedelta(hours=int(hours), minutes=int(minutes or 0))
    return timezone(-away if text[0] == "-" else away)
