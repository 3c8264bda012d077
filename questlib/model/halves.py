"""A body cut in two: layers that are frozen, whose states can be kept, and layers above that go on from those."""

import copy
import itertools
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from questlib.model.body import BODY_ERRORS, short_pass

Module = TypeVar("Module", bound=nn.Module)
# A pass shows whether the halves of a body make the whole: as a share of the largest state; rounding is below.
_TOLERANCE = 1e-5


class BodyHalves:
    """The lower and the upper layers of a body, as two bodies that share its weights.

    Args:
        body: The whole.
        n_frozen: How many layers the lower half has; it begins with the embeddings.

    Raises:
        ValueError: If the body has no list of layers.
    """

    def __init__(self, body: PreTrainedModel, n_frozen: int) -> None:
        self._body = body
        self._path = _find_layers(body)
        layers = layers_of(body)
        self._learning = layers[n_frozen:]
        self.lower = _with_layers(body, self._path, layers[:n_frozen])
        self.upper = _with_layers(body, self._path, self._learning)
        for name in ("embeddings", "embeddings_project"):
            if name in self.upper._modules:
                self.upper._modules[name] = AsGiven()

    @property
    def dtype(self) -> torch.dtype:
        """Tell what the upper half reads; it may have no weights, and a body alone then tells of its buffers."""
        return next(itertools.chain(self.upper.parameters(), self._body.parameters())).dtype

    def frozen_parameters(self) -> Iterator[nn.Parameter]:
        """Give all that the lower half is made of, and what both halves share."""
        learning = {id(parameter) for layer in self._learning for parameter in layer.parameters()}
        return (parameter for parameter in self._body.parameters() if id(parameter) not in learning)

    def frozen_modules(self) -> Iterator[nn.Module]:
        """Give the modules of the lower half: the embeddings and its layers."""
        learning = {id(module) for layer in self._learning for module in layer.modules()}
        return (module for module in self.lower.modules() if id(module) not in learning)

    @torch.no_grad()
    def refuse_unlike(self) -> None:
        """Refuse a body whose halves do not make the whole. It is asked itself: a list of families would grow old.

        Raises:
            ValueError: If it does something else than its layers, one after the other.
        """
        was_training = self._body.training
        self._body.eval()
        tokens = short_pass(self._body)
        try:
            whole = self._body(**tokens).last_hidden_state
            states = self.lower(**tokens).last_hidden_state
            again = self.upper(inputs_embeds=states, attention_mask=tokens["attention_mask"]).last_hidden_state
            difference = float((whole - again).abs().max() / whole.abs().max())
        except BODY_ERRORS as error:
            raise ValueError(
                f"freeze_layers needs a body that can go on from the states of a layer, however {_name(self._body)} "
                f"cannot: {error}; freeze fewer layers, or none"
            ) from error
        finally:
            self._body.train(was_training)
        if not difference <= _TOLERANCE:
            raise ValueError(
                f"freeze_layers needs a body that is no more than its layers, one after the other, however "
                f"{_name(self._body)} differs by {difference:.1g} when cut in two; set it to 0"
            )


class AsGiven(nn.Module):
    """Stands where embeddings are made of words, or tokens are pooled for another task, and lets states through."""

    def forward(
        self, states: Tensor | None = None, inputs_embeds: Tensor | None = None, *_: object, **__: object
    ) -> Tensor:
        """Give what was given."""
        given = states if inputs_embeds is None else inputs_embeds
        assert given is not None
        return given


def _name(body: PreTrainedModel) -> str:
    return str(body.config.model_type)


def layers_of(body: PreTrainedModel) -> list[nn.Module]:
    """List the layers of a body, the lowest first; a body that keeps them in no list is refused."""
    found = body.get_submodule(_find_layers(body))
    assert isinstance(found, nn.ModuleList)
    return list(found)


def _find_layers(body: PreTrainedModel) -> str:
    n_layers, lists = body.config.num_hidden_layers, dict[str, nn.ModuleList]()
    for name, module in body.named_modules():  # a list comes before those within its layers
        is_within = name.startswith(tuple(f"{outer}." for outer in lists))
        if isinstance(module, nn.ModuleList) and not is_within and any(True for _ in module.parameters()):
            lists[name] = module
    found = [name for name, each in lists.items() if len(each) == n_layers]
    if found and len(lists) == 1:
        return found[0]
    raise ValueError(
        f"freeze_layers, reset_layers and layer_decay need a body with {n_layers} layers in a list, "
        f"however {_name(body)} has {f'parts of them in {list(lists)}' if found else 'none'}; leave them out"
    )


def _with_layers(body: PreTrainedModel, path: str, layers: list[nn.Module]) -> PreTrainedModel:
    # Copies of the modules on the way to the list alone; all below are shared.
    half = _copy(body)
    parent: nn.Module = half
    *way, last = path.split(".")
    for name in way:
        child = _copy(parent.get_submodule(name))
        parent._modules[name] = child
        parent = child
    parent._modules[last] = nn.ModuleList(layers)
    return half


def _copy(module: Module) -> Module:
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    return copied
