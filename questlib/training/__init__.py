"""Staged fine-tuning with the Hugging Face Trainer."""

from questlib.recipe import TrainingSettings
from questlib.stage import Stage
from questlib.training.stages import fit_stages

__all__ = ["Stage", "TrainingSettings", "fit_stages"]
