"""Bound to the unpatched library: what a third party imported too early looks like."""

from __future__ import annotations

from ssl import SSLContext
from time import sleep

__all__ = ["SSLContext", "sleep"]
