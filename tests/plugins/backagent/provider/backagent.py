from dify_plugin.interfaces.agent import AgentProvider


class BackagentProvider(AgentProvider):
    pass
