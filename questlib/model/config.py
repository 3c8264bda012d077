"""All that says what a network is, its encoder's folder aside."""

from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import Any

from transformers import PretrainedConfig

from questlib.checks import refuse_other_kind, refuse_outside, refuse_unknown
from questlib.recipe import ModelOptions

_OPTIONS = tuple(each.name for each in fields(ModelOptions))


class QuestConfig(PretrainedConfig):
    """Everything needed to build a `QuestModel` without its encoder's folder.

    Args:
        body: The encoder's own configuration, `model_type` included.
        n_kinds: Kinds of passes per row: 1 for a joint layout, 2 for a pair.
        metadata_width: Columns of the metadata.
        options: Fields of `questlib.recipe.ModelOptions`; any other name is refused, but not in what was saved.
    """

    model_type = "quest"

    def __init__(
        self,
        *,
        body: dict[str, Any] | None = None,
        n_kinds: int = 1,
        metadata_width: int = 0,
        **options: Any,  # noqa: ANN401  transformers hands its own fields through
    ) -> None:
        # What was saved says which transformers wrote it, and holds fields of that version's own.
        if "transformers_version" not in options:
            refuse_unknown_options(options)
        for name, value, least in (("n_kinds", n_kinds, 1), ("metadata_width", metadata_width, 0)):
            refuse_other_kind(value, int, what=name)
            refuse_outside(value, low=least, high=1_000_000, what=name)
        self.body = body or {}
        self.n_kinds = n_kinds
        self.metadata_width = metadata_width
        own = asdict(ModelOptions(**{name: options.pop(name) for name in _OPTIONS if name in options}))
        for name, value in own.items():
            setattr(self, name, value)
        super().__init__(**options)

    @property
    def model_options(self) -> ModelOptions:
        """What the network is made of."""
        return ModelOptions(**{name: getattr(self, name) for name in _OPTIONS})


def refuse_unknown_options(options: Iterable[str]) -> None:
    """Refuse what says nothing about a network beside its body."""
    refuse_unknown(options, known=("n_kinds", "metadata_width", *_OPTIONS), what="model option")


def refuse_too_many_layers(config: QuestConfig, *, n_layers: int) -> None:
    """Refuse more layers of a kind than a body of so many has."""
    n_learning = n_layers - config.freeze_layers
    most = {"freeze_layers": n_layers, "reset_layers": n_learning, "n_mixed_layers": n_learning + 1}
    for name, value in most.items():
        if getattr(config, name) > value:
            raise ValueError(
                f"{name} must be {value} at most, in a body of {n_layers} layers of which {config.freeze_layers} are "
                f"frozen, however: {getattr(config, name)}"
            )
