"""The network: passes through one shared body, pooled, and a head that metadata reaches past the body."""

from questlib.model.quest import QuestConfig, QuestModel

__all__ = ["QuestConfig", "QuestModel"]
