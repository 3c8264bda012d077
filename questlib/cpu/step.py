"""A training step on a CPU: every core goes forward and backward over rows of its own."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from questlib.cpu.cores import OwnDropout, count_cores, give_freed_memory_back, map_on_cores
from questlib.devices import narrowed

# More tokens at once take more memory: each two fifths of a megabyte in six layers of a base-size body, half as much in
# 16 bits. With fewer, adding gradients takes longer, and a loss that compares rows computes more of them twice.
_TOKENS_OF_A_PART = {"bf16": 4_096, "fp32": 2_560}
# Memory that is freed is kept for the next batch, and what has gathered is given back after so many.
_BATCHES_TO_GIVE_BACK = 32

_SeededPart = tuple[dict[str, Tensor], int]  # each part drops by a seed of its own


class StepOnCores:
    """Differentiate a batch in parts. The gradients are those of the whole, added in one order: a seed decides them.

    Args:
        model: Its word embeddings are `get_input_embeddings()`.
        precision: "bf16" or "fp32".
    """

    def __init__(self, model: PreTrainedModel, *, precision: str) -> None:
        self.model = model
        self.precision = precision
        self._word_gradient: Tensor | None = None
        self._n_batches = 0

    def differentiate(
        self,
        batch: dict[str, Tensor],
        loss_of: Callable[[dict[str, Tensor]], Tensor],
        *,
        body: nn.Module,
        n_rows: int,
        n_parts: int = 1,
    ) -> Tensor:
        """Add the gradients of a batch to those of the parameters, and give its share of the step's loss.

        Args:
            batch: What `questlib.batches.PassCollator` builds from tokens.
            loss_of: Gives the mean loss of a part, with its graph; is called from several threads.
            body: What of the model's body the batch goes through.
            n_rows: Rows of the whole step, of which the batch may be a part.
            n_parts: Into how many parts the batch is cut at least.
        """
        device = batch["metadata"].device
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        parts = self._split(batch, n_parts)

        def compute(part_and_seed: _SeededPart) -> tuple[Tensor, tuple[Tensor | None, ...]]:
            part, seed = part_and_seed
            with OwnDropout(seed):
                loss = loss_of(part) * len(part["metadata"]) / n_rows
            return loss.detach(), torch.autograd.grad(loss, parameters, allow_unused=True)

        losses, sums = [], [parameter.grad for parameter in parameters]
        with self._shared_by_parts(body):
            for loss, gradients in map_on_cores(compute, parts, device=device):
                losses.append(loss)
                self._add_gradients(sums, gradients)  # at once: those of all parts together take as much as the rest
        self._give_gradients(parameters, sums)
        return torch.stack(losses).sum()

    def differentiate_together(
        self,
        batch: dict[str, Tensor],
        logits_of: Callable[[dict[str, Tensor]], Tensor],
        loss_of: Callable[[Tensor, Tensor], Tensor],
        *,
        body: nn.Module,
        n_rows: int,
        n_parts: int = 1,
    ) -> Tensor:
        """Do the same where the loss compares rows: forward in parts, the loss of them all, backward in parts.

        What parts need to go backward is kept of as many as memory should hold, and of the others computed once more.

        Args:
            batch: As `differentiate` takes it, and so the last three.
            logits_of: Gives the logits of a part, with their graph; is called from several threads.
            loss_of: Gives the mean loss of logits and labels.
            body: See there.
            n_rows: See there.
            n_parts: See there.
        """
        device = batch["metadata"].device
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        parts = self._split(batch, n_parts)
        n_kept = self._count_kept(batch, n_parts=len(parts))

        def go_forward(place: int) -> Tensor:
            part, seed = parts[place]
            with OwnDropout(seed):  # drops the same the second time
                return logits_of(part)

        def tell_logits(place: int) -> Tensor:
            with torch.set_grad_enabled(place < n_kept):
                return go_forward(place)

        def go_backward(place_and_gradient: tuple[int, Tensor]) -> tuple[Tensor | None, ...]:
            place, gradient = place_and_gradient
            own = logits[place] if place < n_kept else go_forward(place)
            return torch.autograd.grad(own, parameters, gradient, allow_unused=True)

        with self._shared_by_parts(body):
            logits = list(map_on_cores(tell_logits, range(len(parts)), device=device))
            together = torch.cat(logits).detach().requires_grad_()
            labels = torch.cat([part["labels"] for part, _ in parts]).float()
            loss = loss_of(together, labels) * len(labels) / n_rows
            (gradient,) = torch.autograd.grad(loss, together)
            of_parts = list(enumerate(gradient.split([len(each) for each in logits])))
            sums = [parameter.grad for parameter in parameters]
            for gradients in map_on_cores(go_backward, of_parts, device=device):
                self._add_gradients(sums, gradients)
        self._give_gradients(parameters, sums)
        return loss.detach()

    def _split(self, batch: dict[str, Tensor], n_parts: int) -> list[_SeededPart]:
        self._n_batches += 1
        if self._n_batches % _BATCHES_TO_GIVE_BACK == 0:
            give_freed_memory_back()
        n_at_once = _count_parts_at_once(batch["metadata"].device)
        n_rounds = math.ceil(max(n_parts, _count_tokens(batch) / _TOKENS_OF_A_PART[self.precision]) / n_at_once)
        parts = split_batch(batch, n_at_once * n_rounds)
        return list(zip(parts, torch.randint(2**62, (len(parts),)).tolist(), strict=True))

    def _count_kept(self, batch: dict[str, Tensor], *, n_parts: int) -> int:
        n_tokens = _count_parts_at_once(batch["metadata"].device) * _TOKENS_OF_A_PART[self.precision]
        return int(n_parts * n_tokens / _count_tokens(batch))

    def _add_gradients(self, sums: list[Tensor | None], gradients: Sequence[Tensor | None]) -> None:
        for place, (total, gradient) in enumerate(zip(sums, gradients, strict=True)):
            if gradient is None:
                continue
            if total is not None:
                total.add_(gradient)
            elif gradient.is_sparse:
                # Kept from step to step: memory of this size is given back when freed, and slow to be had again.
                if self._word_gradient is None:
                    self._word_gradient = torch.empty(gradient.shape)
                sums[place] = self._word_gradient.zero_().add_(gradient)
            else:
                sums[place] = gradient.float()

    def _give_gradients(self, parameters: Sequence[nn.Parameter], sums: Sequence[Tensor | None]) -> None:
        for parameter, total in zip(parameters, sums, strict=True):
            parameter.grad = total  # only now: while parts are computed, parameters are bf16

    @contextmanager
    def _shared_by_parts(self, body: nn.Module) -> Iterator[None]:
        # What every part would do again: weights become bf16, which has the range of 32 bits, so that the body runs in
        # it throughout; and the gradient of the words is zero but for those that were read.
        words = self.model.get_input_embeddings()
        assert isinstance(words, nn.Embedding)
        words.sparse = True
        try:
            with narrowed(body.parameters()) if self.precision == "bf16" else nullcontext():
                yield
        finally:
            words.sparse = False


def _count_parts_at_once(device: torch.device) -> int:
    return max(2, count_cores(device))  # one core takes the parts that two take


def _count_tokens(batch: dict[str, Tensor]) -> int:
    # A pass that several rows share is read once.
    lengths = batch["attention_mask"].sum(dim=1)
    first = np.unique(batch["texts"], return_index=True)[1] if "texts" in batch else slice(None)
    return int(lengths[first].sum())


def split_batch(batch: dict[str, Tensor], n_parts: int) -> list[dict[str, Tensor]]:
    """Split a batch into at most `n_parts` smaller ones of about as many tokens each, every row in one of them.

    Rows that share a pass stay in one part, where there are enough others.
    """
    n_rows, rows = len(batch["metadata"]), batch["rows"].tolist()
    read = (
        batch["attention_mask"].sum(dim=1) if "attention_mask" in batch else torch.ones_like(batch["rows"])
    ).tolist()
    texts = batch["texts"].tolist() if "texts" in batch else rows
    lengths, first = [0] * n_rows, [-1] * n_rows  # tokens of each row, and which pass is its first
    for place, (row, n_tokens) in enumerate(zip(rows, read, strict=True)):
        lengths[row] += n_tokens
        first[row] = place if first[row] < 0 else first[row]
    groups: dict[int, list[int]] = {}
    for row in range(n_rows):
        groups.setdefault(texts[first[row]], []).append(row)
    together = list(groups.values()) if len(groups) >= n_parts else [[row] for row in range(n_rows)]

    def cost(group: list[int]) -> int:
        """Count the tokens that are read: the first pass of rows that share it counts once."""
        return sum(lengths[row] for row in group) - sum(read[first[row]] for row in group[1:])

    together.sort(key=lambda group: -cost(group))  # stable: a seed decides all
    chosen: list[list[int]] = [[] for _ in range(min(n_parts, n_rows))]
    costs = [0] * len(chosen)
    for group in together:
        least = costs.index(min(costs))
        chosen[least] += group
        costs[least] += cost(group)
    device = batch["rows"].device
    return [_take_rows(batch, torch.tensor(each, device=device), n_rows) for each in chosen]


def _take_rows(batch: dict[str, Tensor], chosen: Tensor, n_rows: int) -> dict[str, Tensor]:
    place = torch.full((n_rows,), -1, device=chosen.device)
    place[chosen] = torch.arange(len(chosen), device=chosen.device)
    rows = place[batch["rows"]]
    part = {
        name: tensor[chosen] if name in ("metadata", "labels") else tensor[rows >= 0] for name, tensor in batch.items()
    }
    return part | {"rows": rows[rows >= 0]}
