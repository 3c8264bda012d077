"""The optimiser of a stage: the body's rate and the head's, decay for matrices alone."""

import torch

from questlib.model.quest import QuestModel
from questlib.recipe import Stage, TrainingSettings


def build_optimizer(model: QuestModel, stage: Stage, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Build the optimiser of a stage, with a group for each rate and decay, over what `requires_grad`."""
    in_head = {id(parameter) for parameter in model.head_parameters()}
    groups = []
    for is_head, rate in ((False, stage.learning_rate), (True, stage.head_learning_rate)):
        for decays, decay in ((False, 0.0), (True, stage.weight_decay)):
            parameters = [
                parameter
                for parameter in model.parameters()
                if parameter.requires_grad and (id(parameter) in in_head) == is_head and (parameter.ndim > 1) == decays
            ]
            if parameters:
                groups.append({"params": parameters, "lr": rate, "weight_decay": decay})
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ImportError("adamw_8bit needs bitsandbytes; install it or choose optimizer adamw") from error
    return AdamW8bit(groups)
