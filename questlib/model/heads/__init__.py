"""Heads: from pooled passes and metadata to logits.

A new one is a class, a line here and its name in `questlib.recipe`.
"""

from torch import nn

from questlib.model.heads.hidden import HiddenHead
from questlib.model.heads.linear import LinearHead

HEADS: dict[str, type[nn.Module]] = {"linear": LinearHead, "hidden": HiddenHead}
