"""Kinds of stages. A new one is a class, a line here and, for its own fields, a dataclass in the recipe."""

from questlib.training.kinds.base import StageKind
from questlib.training.kinds.fine_tune import FineTune
from questlib.training.kinds.lora import Lora
from questlib.training.kinds.masked_language import MaskedLanguage
from questlib.training.kinds.pseudo_label import PseudoLabel

STAGE_KINDS: dict[str, type[StageKind]] = {
    "fine_tune": FineTune, "lora": Lora, "masked_language": MaskedLanguage, "pseudo_label": PseudoLabel,
}  # fmt: skip
