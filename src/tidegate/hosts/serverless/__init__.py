"""Plugins that run as functions elsewhere: PLATFORM=serverless (spec/plugin/03).

link --call--> Serverless --greenlet--> Invocation --HttpPool--> function
                   |    ^
     install, ...  |    +-- transaction: the function's back-calls, by way of api, and of
                   v        the host that this api process is connected to
               Installation --Connector--> builds and launches functions
"""

from tidegate.hosts.serverless.runtime import Serverless

__all__ = ["Serverless"]
