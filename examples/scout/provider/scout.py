from dify_plugin.interfaces.agent import AgentProvider


class ScoutProvider(AgentProvider):
    """Has one strategy and needs no credentials."""
