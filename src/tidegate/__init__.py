"""Tidegate hosts Dify plugins: tools, models, agents, webhooks, each in its own process.

Whatever a plugin does, only the call that it was serving notices. ``docs/concepts.md`` is the
way in; ``docs/architecture.md`` is the plan of the house.
"""

__version__ = "0.1.0"
