"""Pure computation of up to seconds, on a native thread: others are served meanwhile.

What runs there takes no lock, writes no log and asks no database: all of those belong to greenlets.
"""

from __future__ import annotations

from collections.abc import Callable

import gevent

from tidegate.errors import PackageRejected


def in_thread[**P, T](work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """What ``work`` returns. PackageRejected comes out of the thread as it was raised there.

    Anything else that it raises is a defect of ours, and gevent prints it where it happened.
    """
    outcome = gevent.get_hub().threadpool.apply(_value_or_refusal, (work, arguments, named))
    if isinstance(outcome, PackageRejected):
        raise _bare(outcome)
    return outcome  # type: ignore[no-any-return]


def _value_or_refusal[T](
    work: Callable[..., T], arguments: tuple[object, ...], named: dict[str, object]
) -> T | PackageRejected:
    # As a value: gevent prints the traceback of whatever its threads raise, and a package that is
    # not taken is no news for the log.
    try:
        return work(*arguments, **named)
    except PackageRejected as error:
        return _bare(error)


def _bare(error: PackageRejected) -> PackageRejected:
    """The same refusal without the frames that it came through.

    They hold the package, up to 600 MiB, and gevent's result of a thread holds the refusal until
    the next collection. So it is made anew on both sides: whoever raises it adds frames.
    """
    return PackageRejected(error.message, **error.details)
