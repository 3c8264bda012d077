"""What is trained, in frozen dataclasses: checked as they are made, and read back from JSON as they were written.

Importing this needs no torch: names of poolings, heads, losses and kinds stand here, their classes in `questlib.model`,
`questlib.training` and `questlib.members`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from questlib.checks import Checked, between, one_of, refuse_outside, refuse_unknown, take_tuple
from questlib.plan import WHOLE, Share
from questlib.schema import TARGETS
from questlib.stage import STAGE_RECIPES, MaskedLanguageStage, Stage, refuse_misplaced
from questlib.typed_json import list_leaves, read_typed, write_typed

POOLINGS = ["cls", "mean", "cls_mean", "gru", "lstm"]
HEADS = ["linear", "hidden"]
LOSSES = ["binary_cross_entropy", "ordinal", "margin_ranking", "soft_spearman"]
TARGET_SCALES = ["rating", "rank"]
TARGET_WEIGHINGS = ["equal", "inverse_spread"]
LAYOUTS = ["joint", "pair", "question"]
OPTIMIZERS = ["adamw", "adamw_8bit"]
PRECISIONS = ["auto", "bf16", "fp16", "fp32"]
# A member's scores and parameters stand in tables beside these.
_RESERVED = ("blended", "tied", "submitted", "target", "parameter")
_MANY = 1_000_000
_LAST_SEED = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class TextLayout(Checked):
    """How a row's text becomes passes. A budget of tokens that a part does not need goes to the others."""

    layout: str = one_of(LAYOUTS, "pair")  # title, body, answer in a "joint" pass; a "pair" of them; "question" alone
    separator: str = one_of(["special", "space"], "special")  # the tokenizer's own, or parts joined to one text
    max_length: int = between(8, 8192, 512)  # most tokens of a pass, special ones included
    title_tokens: int = between(1, 8192, 30)  # budget of the title, max_length at most
    body_share: float = between(0, 1, 0.5)  # share of the rest that a joint pass gives to the body
    head_share: float = between(0, 1, 1.0)  # share of a cut part that is taken from its head; 1 cuts the tail off
    stride: int = between(0, 4096, 0)  # tokens that windows share, max_length / 2 at most; 0 cuts instead
    max_windows: int = between(1, 64, 4)  # windows of a pass; they are passes of their own, averaged

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_outside(self.title_tokens, low=1, high=self.max_length, what="title_tokens")
        refuse_outside(self.stride, low=0, high=self.max_length // 2, what="stride")


@dataclass(frozen=True, kw_only=True)
class MetadataOptions(Checked):
    """What goes round the transformer: the parameters of `questlib.metadata.MetadataEncoder`."""

    n_hosts: int = between(0, _MANY, 10)  # hosts with a column of their own
    use_text_statistics: bool = False  # adds lengths and shares of symbols


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Checked):
    """What the network is made of, its encoder aside."""

    pooling: str = one_of(POOLINGS, "cls")  # "gru" and "lstm" read the tokens in both directions
    freeze_layers: int = between(0, 64, 0)  # lowest layers that do not learn, with the embeddings; computed once
    reset_layers: int = between(0, 64, 0)  # highest layers that begin anew: they know most of what is not asked here
    n_mixed_layers: int = between(1, 64, 1)  # last layers of the body that are mixed
    head: str = one_of(HEADS, "linear")  # "hidden" has a ReLU layer
    hidden_width: int = between(2, 8192, 256)  # of the hidden layer and of the recurrent reading
    head_dropout: float = between(0, 0.99, 0.1)
    use_split_head: bool = False  # question and answer targets have a head each
    attention_dropout: float | None = between(0, 0.99, None)  # 0 keeps attention on fused kernels; None: the encoder's
    hidden_dropout: float | None = between(0, 0.99, None)  # within the body's layers; None: the encoder's
    loss: str = one_of(LOSSES, "binary_cross_entropy")
    target_weights: dict[str, float] = field(default_factory=dict)  # in the loss, in [0, 1000]; others weigh 1

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_unknown(self.target_weights, known=TARGETS, what="target in target_weights")
        for name, weight in self.target_weights.items():
            refuse_outside(weight, low=0, high=1000, what=f"target_weights[{name!r}]")
        if not any(self.target_weights.get(name, 1.0) for name in TARGETS):
            raise ValueError("at least one target weight must be above 0, however: all are 0")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Checked):
    """What all stages share."""

    batch_size: int = between(1, _MANY, 16)  # rows
    accumulation: int = between(1, _MANY, 1)  # batches whose gradients are added before a step
    evaluate_every: int = between(0, _MANY, 0)  # steps between evaluations on held-out questions; 0: once an epoch
    patience: int = between(0, _MANY, 3)  # evaluations without a gain before a stage ends; 0 never ends it early
    threshold: float = between(-1, 1, 0.0)  # what counts as a gain, in Spearman
    optimizer: str = one_of(OPTIMIZERS, "adamw")  # fused, or bitsandbytes' in 8 bits
    precision: str = one_of(PRECISIONS, "auto")
    seed: int = between(0, _LAST_SEED, 42)  # of the head, the order of the rows, dropout; fold and stage add to it
    use_tensorboard: bool = False


@dataclass(frozen=True, kw_only=True)
class MemberRecipe(Checked):
    """One member of a run. Each kind has a recipe of its own; `is_quick` lets it train before the others."""

    kind: ClassVar[str]
    is_quick: ClassVar[bool] = False
    name: str  # unique in its run
    folds_to_train: int = between(1, _MANY, 1)  # how many of the run's folds, from the first on

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", self.name, re.ASCII) or self.name in _RESERVED:
            raise ValueError(
                f"a member's name must be a word of letters, digits, '-', '_' and '.', and none of {_RESERVED}, "
                f"however: {self.name!r}"
            )

    def for_fold(self, fold: int) -> Self:
        """Give the recipe of one fold; a kind that draws random numbers draws others in each."""
        return self

    def without_paths(self) -> Self:
        """Give what may lie beside the weights wherever they go: no path of this machine."""
        return self

    def epochs(self, share: Share = WHOLE) -> tuple[float, ...]:
        """Give a fold's passes over its rows, by stage, where a share of them has time; none without stages."""
        return ()


@dataclass(frozen=True, kw_only=True)
class LexicalRecipe(MemberRecipe):
    """The parameters of `questlib.lexical.LexicalModel`; see there."""

    kind: ClassVar[str] = "lexical"
    is_quick: ClassVar[bool] = True
    name: str = "lexical"
    alpha: float = between(1e-6, 1e9, 10.0)
    metadata_weight: float = between(0, 1e6, 0.5)
    length_weight: float = between(0, 1e6, 0.17)


@dataclass(frozen=True, kw_only=True)
class BoostedRecipe(MemberRecipe):
    """The parameters of `questlib.members.boosted`; see there."""

    kind: ClassVar[str] = "boosted"
    is_quick: ClassVar[bool] = True
    name: str = "boosted"
    n_stumps: int = between(1, 10_000, 150)  # of each target
    shrinkage: float = between(1e-4, 1, 0.1)  # what of a stump counts


@dataclass(frozen=True, kw_only=True)
class TransformerRecipe(MemberRecipe):
    """A transformer with a metadata skip connection, fine-tuned in stages."""

    kind: ClassVar[str] = "transformer"
    name: str = "transformer"
    encoder: str | Path  # a folder, the slug of what is attached, "all-MiniLM-L6-v2", or a hub name when online
    layout: TextLayout = TextLayout()
    metadata: MetadataOptions = MetadataOptions()
    model: ModelOptions = ModelOptions()
    stages: tuple[Stage, ...]  # in order
    cycles: int = between(1, 1000, 1)  # how often the stages are gone through
    settings: TrainingSettings = TrainingSettings()
    target_scale: str = one_of(TARGET_SCALES, "rating")  # what is learned: ratings as they are, or their "rank"
    target_weighing: str = one_of(TARGET_WEIGHINGS, "equal")  # "inverse_spread" turns to targets that vary little
    stop_share: float = between(0, 0.5, 0.1)  # share of the questions held out to stop by; 0 trains to the end

    def __post_init__(self) -> None:
        if not isinstance(self.encoder, str | Path):
            raise TypeError(f"encoder must be a name or a folder, however: {self.encoder!r}")
        object.__setattr__(self, "encoder", str(self.encoder))
        take_tuple(self, "stages", of=Stage)
        super().__post_init__()
        if not self.stages:
            raise ValueError(f"there must be a stage, however: {self.stages=}")
        refuse_misplaced(self.stages, cycles=self.cycles)
        if self.settings.evaluate_every and not self.stop_share:
            raise ValueError(
                f"evaluations every so many steps need questions that are held out, however: {self.stop_share=}, "
                f"evaluate_every={self.settings.evaluate_every}; set stop_share to 0.1, or evaluate_every to 0"
            )

    def for_fold(self, fold: int) -> Self:
        """Shift the seed; after the last comes the first."""
        seed = (self.settings.seed + fold) % (_LAST_SEED + 1)
        return replace(self, settings=replace(self.settings, seed=seed))

    def without_paths(self) -> Self:
        """Name the encoder by its folder's name."""
        path = Path(self.encoder)
        is_path = path.is_absolute() or str(self.encoder).startswith((".", "~"))
        return replace(self, encoder=path.name) if is_path else self

    def epochs(self, share: Share = WHOLE) -> tuple[float, ...]:
        """Give fewer to every stage, or to the first one alone that reads ratings; stages come cycle after cycle."""
        first = 2 if isinstance(self.stages[0], MaskedLanguageStage) else 1
        stages = (self.stages * self.cycles)[: first if share.first_stage_alone else None]
        return tuple(stage.epochs * share.epochs for stage in stages)


@dataclass(frozen=True, kw_only=True)
class Recipe(Checked):
    """All that decides what a run trains; it is kept in the run folder."""

    members: tuple[MemberRecipe, ...]  # trained on the same folds, blended in this order
    split: str = one_of(["question", "random"], "question")  # "random" leaks; see `questlib.data.assign_folds`
    folds: int = between(2, _MANY, 5)
    seed: int = between(0, 2**32 - 1, 42)  # of the folds

    def __post_init__(self) -> None:
        take_tuple(self, "members", of=MemberRecipe)
        super().__post_init__()
        names = [member.name.casefold() for member in self.members]  # some file systems do not tell A from a
        if not names or len(set(names)) < len(names):
            raise ValueError(f"there must be members, each with a name of its own, however: {names}")
        for member in self.members:
            what = f"folds_to_train of member {member.name!r}"
            refuse_outside(member.folds_to_train, low=1, high=self.folds, what=what)

    @property
    def leaks(self) -> bool:
        """Whether one question may stand on both sides of a split."""
        return self.split == "random"

    def without_paths(self) -> Self:
        """Give what may lie in a run folder wherever that goes: no path of this machine."""
        return replace(self, members=tuple(member.without_paths() for member in self.members))

    @property
    def encoders(self) -> list[str]:
        """The encoders that members begin with, each once."""
        return list(dict.fromkeys(str(each.encoder) for each in self.members if isinstance(each, TransformerRecipe)))

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Build a recipe from flat parameters, other names beside them.

        Each entry of `members` has a name, a kind, and what it overrides of the other parameters. What is misspelt, out
        of range or of another kind is refused by name.
        """
        entries = parameters["members"]
        if not isinstance(entries, list | tuple):
            raise TypeError(f"members must be a list of members, however: {entries!r}")
        members = [_nest_member(entry, parameters, number) for number, entry in enumerate(entries)]
        own = {name: parameters[name] for name in ("split", "folds", "seed") if name in parameters}
        return cls.from_dict(own | {"members": members})

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        return read_typed(cls, content, where="recipe", families=FAMILIES)

    def to_dict(self) -> dict[str, Any]:
        """Write the recipe in types that JSON has."""
        return write_typed(self)


def read_member(content: Mapping[str, Any]) -> MemberRecipe:
    """Read what `questlib.typed_json.write_typed` wrote of one member's recipe."""
    return read_typed(MemberRecipe, content, where="recipe", families=FAMILIES)


def is_unread(name: str, parameters: Mapping[str, Any]) -> bool:
    """Tell whether no member of a recipe reads a parameter: each has a value of its own, or no use for any.

    A dotted name may have reached into what a member has of its own, and is read where a member has use for it.
    `parameters` are such as `Recipe.from_parameters` took.
    """
    first, *inner = name.split(".")
    leaves = {kind: set(list_leaves(recipe)) for kind, recipe in MEMBER_RECIPES.items()}
    readers = [each for each in parameters["members"] if first in leaves[each["kind"]]]
    is_of_members = first in set().union(*leaves.values()) - {each.name for each in fields(Recipe)}
    return is_of_members and all(first in each and not inner for each in readers)


def _nest_member(entry: object, parameters: Mapping[str, Any], number: int) -> dict[str, Any]:
    # Parameters are flat, because people name them one by one; the recipe keeps what belongs together together.
    if not isinstance(entry, Mapping) or not {"name", "kind"} <= set(entry):
        raise ValueError(f"members[{number}] must map parameters to values, name and kind among them, however: {entry}")
    refuse_unknown([entry["kind"]], known=MEMBER_RECIPES, what=f"kind of member {entry['name']!r}")
    leaves = list_leaves(MEMBER_RECIPES[entry["kind"]])
    refuse_unknown(entry, known=("kind", *leaves), what=f"parameter of {entry['kind']} member {entry['name']!r}")
    nested: dict[str, Any] = {"kind": entry["kind"]}
    for name, (*groups, _) in leaves.items():
        if name in entry or name in parameters:
            place = nested
            for group in groups:
                place = place.setdefault(group, {})
            place[name] = entry[name] if name in entry else parameters[name]
    return nested


MEMBER_RECIPES: dict[str, type[MemberRecipe]] = {
    each.kind: each for each in (TransformerRecipe, LexicalRecipe, BoostedRecipe)
}
FAMILIES: dict[type, Mapping[str, type]] = {MemberRecipe: MEMBER_RECIPES, Stage: STAGE_RECIPES}
