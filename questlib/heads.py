"""Everything past the body: layer mix, pooling, the metadata skip connection, and the logits."""

import torch
from torch import Tensor, nn

from questlib.pooling import (
    ClsMeanPooling,
    ClsPooling,
    LayerMix,
    MeanPooling,
    Pooling,
    RecurrentPooling,
    average_passes,
)
from questlib.schema import QUESTION_TARGETS, TARGETS

POOLINGS: dict[str, type[ClsPooling] | type[MeanPooling] | type[ClsMeanPooling]] = {
    "cls": ClsPooling,
    "mean": MeanPooling,
    "cls_mean": ClsMeanPooling,
}
CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}
HEADS: tuple[str, ...] = ("linear", "hidden", *CELLS)


class QuestHead(nn.Module):
    """Read pooled passes and metadata.

    NOTE[WIDE & DEEP]: arXiv 1606.07792 trains a linear model beside a deep one; here the metadata joins the pooled text
    and both go through the same layers, so a hidden head can let them interact.

    Args:
        mix: Mixes the body's layers.
        pooling: Makes a vector of each pass.
        outputs: One network from pooled passes and metadata to all targets, or one for question targets and one for
            answer targets.
        n_kinds: Kinds of passes per row.
    """

    def __init__(self, *, mix: LayerMix, pooling: Pooling, outputs: list[nn.Module], n_kinds: int) -> None:
        super().__init__()
        self.mix = mix
        self.pooling = pooling
        self.outputs = nn.ModuleList(outputs)
        self.n_kinds = n_kinds

    def pool(self, layers: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        """Pool the tokens of passes.

        Args:
            layers: States of the body's layers, each (n_passes, n_tokens, body_width).
            mask: 1 where a token is not padding, (n_passes, n_tokens).

        Returns:
            (n_passes, output_width).
        """
        return self.pooling(self.mix(layers), mask)

    def forward(self, vectors: Tensor, rows: Tensor, kinds: Tensor, metadata: Tensor) -> Tensor:
        """Read pooled passes and metadata.

        Args:
            vectors: (n_passes, output_width).
            rows: The batch's row that each pass belongs to, (n_passes,).
            kinds: The kind of each pass, (n_passes,).
            metadata: (batch_size, metadata_width).

        Returns:
            Logits, (batch_size, n_targets).
        """
        texts = average_passes(vectors, rows, kinds, n_rows=len(metadata), n_kinds=self.n_kinds)
        answer_view = torch.cat([texts.flatten(1), metadata], dim=-1)
        if self.n_kinds == len(self.outputs) == 1:
            return self.outputs[0](answer_view)
        # Question targets read the first pass only. One shared head sees zeros in the place of the others.
        question_texts = torch.cat([texts[:, :1], torch.zeros_like(texts[:, 1:])], dim=1)
        question_view = torch.cat([question_texts.flatten(1), metadata], dim=-1)
        n_question = len(QUESTION_TARGETS)
        question_logits, answer_logits = self.outputs[0](question_view), self.outputs[-1](answer_view)
        return torch.cat([question_logits[:, :n_question], answer_logits[:, n_question:]], dim=-1)


def build_head(
    *,
    body_width: int,
    n_kinds: int,
    metadata_width: int,
    pooling: str,
    n_mixed_layers: int,
    head: str,
    hidden_width: int,
    head_dropout: float,
    use_split_head: bool,
) -> QuestHead:
    """Choose the bricks of a head by name; the arguments are the fields of `questlib.model.QuestConfig`."""
    pool: Pooling
    if head in CELLS:
        pool = RecurrentPooling(body_width=body_width, cell=CELLS[head], hidden_width=hidden_width)
    else:
        pool = POOLINGS[pooling](body_width=body_width)
    width = n_kinds * pool.output_width + metadata_width
    hidden = hidden_width if head == "hidden" else 0
    outputs = [_build_output(width, hidden=hidden, dropout=head_dropout) for _ in range(2 if use_split_head else 1)]
    return QuestHead(mix=LayerMix(n_layers=n_mixed_layers), pooling=pool, outputs=outputs, n_kinds=n_kinds)


def _build_output(width: int, *, hidden: int, dropout: float) -> nn.Module:
    if not hidden:
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, len(TARGETS)))
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, len(TARGETS)))
