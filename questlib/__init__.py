"""Predict 30 rater opinions about a question-answer pair, scored by mean column-wise Spearman.

What a library user needs can be had from here, and is imported when it is asked for: `import questlib` takes no time,
and tables, scores and ties come without torch.
"""

__version__ = "0.1.0"

import logging
from importlib import import_module
from typing import TYPE_CHECKING

# transformers imports it where peft is at hand; it then misses kernels that predict in 4 bits, as nothing here does.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

if TYPE_CHECKING:
    from questlib.blending import Blend as Blend
    from questlib.clock import Clock as Clock
    from questlib.data import Tables as Tables
    from questlib.data import assign_folds as assign_folds
    from questlib.data import question_of as question_of
    from questlib.data import read_tables as read_tables
    from questlib.ensemble import Ensemble as Ensemble
    from questlib.folds import train_members as train_members
    from questlib.hosts import HostRates as HostRates
    from questlib.inference import predict_table as predict_table
    from questlib.lexical import LexicalModel as LexicalModel
    from questlib.members import BoostedMember as BoostedMember
    from questlib.members import LexicalMember as LexicalMember
    from questlib.members import Member as Member
    from questlib.members import TransformerMember as TransformerMember
    from questlib.members import load_member as load_member
    from questlib.metadata import MetadataEncoder as MetadataEncoder
    from questlib.metrics import mean_spearman as mean_spearman
    from questlib.metrics import one_row_per_question as one_row_per_question
    from questlib.metrics import score_predictions as score_predictions
    from questlib.metrics import spearman_by_target as spearman_by_target
    from questlib.model import QuestModel as QuestModel
    from questlib.recipe import BoostedRecipe as BoostedRecipe
    from questlib.recipe import LexicalRecipe as LexicalRecipe
    from questlib.recipe import MetadataOptions as MetadataOptions
    from questlib.recipe import ModelOptions as ModelOptions
    from questlib.recipe import Recipe as Recipe
    from questlib.recipe import TextLayout as TextLayout
    from questlib.recipe import TrainingSettings as TrainingSettings
    from questlib.recipe import TransformerRecipe as TransformerRecipe
    from questlib.schema import ANSWER_TARGETS as ANSWER_TARGETS
    from questlib.schema import QUESTION_TARGETS as QUESTION_TARGETS
    from questlib.schema import TARGETS as TARGETS
    from questlib.stage import LoraStage as LoraStage
    from questlib.stage import MaskedLanguageStage as MaskedLanguageStage
    from questlib.stage import PseudoLabelStage as PseudoLabelStage
    from questlib.stage import Stage as Stage
    from questlib.submission import write_submission as write_submission
    from questlib.ties import RankTies as RankTies
else:  # the same for those who run it; a test holds the two together
    _NAMES = {
        "blending": "Blend",
        "clock": "Clock",
        "data": "Tables assign_folds question_of read_tables",
        "ensemble": "Ensemble",
        "folds": "train_members",
        "hosts": "HostRates",
        "inference": "predict_table",
        "lexical": "LexicalModel",
        "members": "BoostedMember LexicalMember Member TransformerMember load_member",
        "metadata": "MetadataEncoder",
        "metrics": "mean_spearman one_row_per_question score_predictions spearman_by_target",
        "model": "QuestModel",
        "recipe": "BoostedRecipe LexicalRecipe MetadataOptions ModelOptions Recipe TextLayout TrainingSettings "
        "TransformerRecipe",
        "schema": "ANSWER_TARGETS QUESTION_TARGETS TARGETS",
        "stage": "LoraStage MaskedLanguageStage PseudoLabelStage Stage",
        "submission": "write_submission",
        "ties": "RankTies",
    }
    _MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}
    __all__ = ["__version__", *_MODULES]

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(
                f"module {__name__!r} has no attribute {name!r}", name=name, obj=import_module(__name__)
            )
        value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_MODULES})
