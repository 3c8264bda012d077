"""Losses: what training makes small.

A new one is a class, a line here and its name in `questlib.recipe`.
"""

from questlib.model.losses.base import Loss
from questlib.model.losses.binary_cross_entropy import BinaryCrossEntropy
from questlib.model.losses.margin_ranking import MarginRanking
from questlib.model.losses.ordinal import Ordinal
from questlib.model.losses.soft_spearman import SoftSpearman

LOSSES: dict[str, type[Loss]] = {
    "binary_cross_entropy": BinaryCrossEntropy,
    "ordinal": Ordinal,
    "margin_ranking": MarginRanking,
    "soft_spearman": SoftSpearman,
}
