"""The door that answers back-calls by Tidegate itself (TIDEGATE_BACKCALLS=self).

A back-call to a model or a tool becomes a call of a plugin that is installed here, with
credentials that the operator gave (``tidegate credential set``). What only Dify has - apps,
workflow nodes, its files - is refused. Lives in the host process: its entry file gives it to the
host as the one who answers.

=============  ====================================================================
deeds          which action a type becomes, field by field
providers      whose provider is meant, and with which credentials
own_answers    the responder: opens the session, passes its chunks on
structured     structured output, with or without the model's help
summary        the summary, by a language model
=============  ====================================================================
"""

from tidegate.doors.plugins.own_answers import OwnAnswers, open_own_answers

__all__ = ["OwnAnswers", "open_own_answers"]
