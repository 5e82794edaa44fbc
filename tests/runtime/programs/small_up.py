"""The supervisor of ``tidegate up`` with roles that start at once (small_role.py)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tidegate.runtime.home import prepare_home
from tidegate.runtime.supervise import START_ORDER, Supervisor

role = str(Path(__file__).with_name("small_role.py"))
supervisor = Supervisor(
    prepare_home(os.environ),
    {name: [sys.executable, role, name] for name in START_ORDER},
    os.environ,
    ["echo", "after ready"],
)
try:
    code = supervisor.run()
finally:
    supervisor.stop()
sys.exit(code)
