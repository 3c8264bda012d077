"""Poolings: from the states of a pass's tokens to one vector.

A new one is a class, a line here and its name in `questlib.recipe`.
"""

from questlib.model.poolings.base import Pooling
from questlib.model.poolings.cls import ClsPooling
from questlib.model.poolings.cls_mean import ClsMeanPooling
from questlib.model.poolings.mean import MeanPooling
from questlib.model.poolings.recurrent import GruPooling, LstmPooling

POOLINGS: dict[str, type[Pooling]] = {
    "cls": ClsPooling,
    "mean": MeanPooling,
    "cls_mean": ClsMeanPooling,
    "gru": GruPooling,
    "lstm": LstmPooling,
}
