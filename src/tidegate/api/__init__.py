"""The HTTP application: routing, keys, limits, errors, streams, health, metrics.

:func:`build_application` composes it once per process, after the patch; ``tidegate.app`` hands
it to Gunicorn. What a route does stands in ``doors``.
"""

from tidegate.api.composition import build_application

__all__ = ["build_application"]
