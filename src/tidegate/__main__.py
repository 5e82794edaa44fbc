"""``python -m tidegate``: the command line where no console script is."""

from __future__ import annotations

from tidegate.cli import main

if __name__ == "__main__":
    main()
