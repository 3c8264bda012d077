"""The state of a training on disk, from which it goes on: safetensors and JSON, whole, and known by their hashes."""

import logging
import random
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from questlib.marks import check_finished, finished_whole
from questlib.run_folder import read_json, told_when_full, write_json
from questlib.training.four_bits import unpacked

logger = logging.getLogger(__name__)

_TENSORS, _STATE = "state.safetensors", "state.json"
_ADDED = (".lora_", "head.words.")  # in the names of what stages add to a model while they train it


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A training between two steps.

    Args:
        tensors: By name; the first word of a name says whose they are.
        state: All else, as JSON has it.
    """

    tensors: dict[str, Tensor]
    state: dict[str, Any]

    def of(self, owner: str) -> dict[str, Tensor]:
        """Give the tensors of one owner, by the rest of their names."""
        return {
            name.removeprefix(f"{owner}."): each for name, each in self.tensors.items() if name.startswith(f"{owner}.")
        }


class Checkpoints:
    """Two places on disk, of which one is good while the other is written.

    Args:
        folder: Holds both.
        of: What is trained, in a word of the caller's: a checkpoint of anything else is refused.
    """

    def __init__(self, folder: Path, *, of: str = "") -> None:
        self._places = (folder / "a", folder / "b")
        self._folder, self._of = folder, of

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint in the place of the older of the two."""
        numbers = [self._number(place) for place in self._places]
        place = self._places[numbers.index(min(numbers))]
        shutil.rmtree(place, ignore_errors=True)
        tensors = _lay_apart(checkpoint.tensors)
        with finished_whole(place) as temporary:
            path = temporary / _TENSORS
            with told_when_full(path, size=sum(each.nbytes for each in tensors.values())):
                save_file(tensors, path)
            write_json(temporary / _STATE, checkpoint.state | {"number": max(numbers) + 1, "of": self._of})

    def read(self) -> tuple[Checkpoint | None, list[str]]:
        """Read the newest checkpoint that is whole, None where there is none, and name those that are damaged.

        Raises:
            ValueError: If it is of another training.
        """
        damaged, whole = [], []
        for place in (place for place in self._places if place.exists()):
            try:
                check_finished(place)
                whole.append((self._number(place), place))
            except (OSError, ValueError, KeyError) as error:
                name = place.relative_to(self._folder.parent)
                damaged.append(f"the checkpoint {name} is damaged and not used: {error}")
        if not whole:
            return None, damaged
        _, newest = max(whole)
        state = read_json(newest / _STATE)
        if state["of"] != self._of:
            raise ValueError(
                f"the checkpoints in {self._folder} must be of this recipe and these rows, however they are of others; "
                "name another folder, or remove it"
            )
        return Checkpoint(tensors=load_file(newest / _TENSORS), state=state), damaged

    def read_progress(self) -> tuple[int, float] | None:
        """Tell how far the newest checkpoint is: finished stages, epochs of the next one; None without a checkpoint."""
        states = [read_json(place / _STATE) for place in self._places if self._number(place) >= 0]
        newest = max(states, key=lambda state: state["number"], default=None)
        return None if newest is None else (newest["stage"], newest["epochs"])

    def remove(self) -> None:
        """Remove both: what they led to is finished."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError):  # those of other folds are there
            self._folder.parent.rmdir()

    def _number(self, place: Path) -> int:
        try:
            return int(read_json(place / _STATE)["number"])
        except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged: the first to be written over
            return -1


def _lay_apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # As safetensors takes them. What all parameters of an 8-bit optimiser share is small.
    apart, met = {}, set()
    for name, each in tensors.items():
        place = each.untyped_storage().data_ptr()
        apart[name] = each.clone() if each.numel() and place in met else each.contiguous()
        met.add(place)
    return apart


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Give all that a model holds, each tensor once."""
    own = {name: each.detach() for name, each in (*model.named_parameters(), *model.named_buffers())}
    return own | unpacked(model)


def put_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `tensors_of` gave; names that differ are refused."""
    own = tensors_of(model)
    if own.keys() != tensors.keys():
        raise ValueError(
            f"a checkpoint must fit its model, however they differ in {sorted(own.keys() ^ tensors.keys())[:5]}"
        )
    for name, each in own.items():
        each.copy_(tensors[name])


def is_added(name: str) -> bool:
    """Tell whether a tensor is of what a stage adds to a model while it trains it."""
    return any(part in name for part in _ADDED)


def without_additions(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name what `tensors_of` gave within a stage as outside it, and leave out what that stage adds."""
    return {name.replace(".base_layer.", "."): each for name, each in tensors.items() if not is_added(name)}


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Part what an optimiser remembers, in mappings within mappings, into tensors and, as JSON, all else."""
    tensors: dict[str, Tensor] = {}
    others: dict[str, Any] = {}

    def part(values: Mapping[Any, Any], *path: str) -> None:
        for key, value in values.items():
            if isinstance(value, Mapping):
                part(value, *path, str(key))
            else:
                (tensors if isinstance(value, Tensor) else others)[".".join((*path, str(key)))] = value

    part(optimizer.state_dict()["state"])
    return tensors, others


def put_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], others: Mapping[str, Any]
) -> None:
    """Let an optimiser remember what `optimizer_state` gave."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **others}.items():
        index, *path, last = name.split(".")
        place = state.setdefault(int(index), {})
        for key in path:
            place = place.setdefault(key, {})
        place[last] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def random_state(device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Give the state of every generator that a library may draw from: tensors and, as JSON, all else."""
    tensors = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    kind, words, *rest = np.random.get_state(legacy=True)  # noqa: NPY002  the one that libraries draw from
    return tensors, {"python": random.getstate(), "numpy": [kind, np.asarray(words).tolist(), *rest]}


def put_random_state(device: torch.device, tensors: Mapping[str, Tensor], others: Mapping[str, Any]) -> None:
    """Put every generator back to where `random_state` found it."""
    torch.set_rng_state(tensors["torch"])
    if device.type == "cuda" and "cuda" in tensors:  # trained on a CPU until now, it draws other numbers from here on
        torch.cuda.set_rng_state(tensors["cuda"], device)
    version, words, gauss = others["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(tuple(others["numpy"]))  # noqa: NPY002
