"""The optimiser of a stage: the body's rate and the head's, decay for matrices alone."""

import logging
from collections.abc import Iterator

import torch
from torch import nn

from questlib.model.halves import layers_of
from questlib.model.quest import QuestModel
from questlib.recipe import TrainingSettings
from questlib.stage import Stage

logger = logging.getLogger(__name__)


def build_optimizer(model: QuestModel, stage: Stage, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Build the optimiser of a stage, with a group for each rate and decay, over what `requires_grad`."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter, rate in _rates(model, stage):
        decay = stage.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    options = [{"params": each, "lr": rate, "weight_decay": decay} for (rate, decay), each in groups.items()]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(options, fused=True)
    from bitsandbytes.optim import AdamW8bit

    if model.device.type == "cpu":
        logger.warning("adamw_8bit takes many times as long as adamw on a CPU: optimizer adamw is quicker here")
    return AdamW8bit(options)


def _rates(model: QuestModel, stage: Stage) -> Iterator[tuple[nn.Parameter, float]]:
    # What lies below the layers is one layer more.
    in_head = {id(parameter) for parameter in model.head_parameters()}
    layers = [] if stage.layer_decay == 1 else layers_of(model.body)
    depth = {id(each): len(layers) - 1 - place for place, layer in enumerate(layers) for each in layer.parameters()}
    for parameter in model.parameters():
        if parameter.requires_grad:
            is_head = id(parameter) in in_head
            decay = 1.0 if is_head else stage.layer_decay ** depth.get(id(parameter), len(layers))
            yield parameter, decay * (stage.head_learning_rate if is_head else stage.learning_rate)
