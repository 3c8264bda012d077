"""The network: passes through one shared body, pooled, and a head that metadata reaches past the body."""

from questlib.model.config import QuestConfig
from questlib.model.quest import QuestModel

__all__ = ["QuestConfig", "QuestModel"]
