"""Which test covers which row of the runtime contract (R1 to R33).

A row is covered by the tests whose names carry it. Rows that are not for now stand in
:data:`LATER` with the reason and the issue that brings them; ``test_rows.py`` fails for a row
that is in neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ROWS: Mapping[str, Sequence[str]] = {
    "R1": ("runtime/test_api_boot.py", "runtime/test_start_paths.py", "runtime/test_up.py"),
    "R2": ("runtime/test_start_paths.py",),
    "R3": ("runtime/test_start_paths.py",),
    "R4": ("runtime/test_api_boot.py",),
    "R5": ("runtime/test_api_boot.py",),
    "R6": ("runtime/test_api_boot.py",),
    "R7": ("runtime/test_api_boot.py",),
    "R8": ("runtime/test_api_boot.py",),
    "R9": ("runtime/test_api_boot.py",),
    "R10": ("runtime/test_patches.py",),
    "R11": ("runtime/test_patches.py",),
    "R12": ("runtime/test_patches.py",),
    "R13": ("runtime/test_patches.py",),
    "R14": ("runtime/test_celery.py",),
    "R15": ("runtime/test_celery.py",),
    "R16": ("runtime/test_celery.py",),
    "R17": ("faults/test_T_H_time_and_beats.py",),
    "R18": ("runtime/test_lifecycle.py",),
    "R19": ("integration/test_live.py",),
    "R21": ("runtime/test_libraries.py",),
    "R22": ("runtime/test_libraries.py",),
    "R23": ("integration/test_backcalls_stack.py",),
    "R24": (
        "integration/test_backcalls_stack.py",
        "integration/test_backcalls_self.py",
        "unit/api/test_application.py",
    ),
    "R25": ("runtime/test_lifecycle.py",),
    "R26": (
        "runtime/test_lifecycle.py",
        "runtime/test_celery.py",
        "unit/api/test_streaming.py",
        "integration/test_live.py",
    ),
    "R27": ("runtime/test_lifecycle.py",),
    "R28": ("runtime/test_start_paths.py", "runtime/test_debugger.py"),
    "R29": ("runtime/test_start_paths.py",),
    "R30": ("runtime/test_start_paths.py",),
    "R31": ("runtime/test_start_paths.py",),
    "R32": ("runtime/test_api_boot.py",),
    "R33": ("runtime/test_libraries.py",),
}

#: Row -> why not now, and the issue that brings it (none: it never applies).
LATER: Mapping[str, str] = {
    "R20": "rooms of socket.io over Redis: there is no socket.io here (none)",
}
