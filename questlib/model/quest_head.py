"""Everything past the body: layer mix, pooling, the metadata skip connection, and the logits."""

import torch
from torch import Tensor, nn

from questlib.model.heads import HEADS
from questlib.model.poolings import POOLINGS, Pooling
from questlib.recipe import ModelOptions
from questlib.schema import QUESTION_TARGETS


class LayerMix(nn.Module):
    """Mix the body's last layers with learned weights that sum to 1; one layer alone is passed on.

    Args:
        n_layers: How many of the last layers are mixed.

    Shape:
        A tuple of (n_passes, n_tokens, body_width), the last layer last -> (n_passes, n_tokens, body_width).
    """

    def __init__(self, *, n_layers: int) -> None:
        super().__init__()
        self.n_layers = n_layers
        if n_layers > 1:
            # Begins near the last layer, which the body's own training made the most useful.
            self.weights = nn.Parameter(torch.tensor([0.0] * (n_layers - 1) + [2.0]))

    def forward(self, layers: tuple[Tensor, ...]) -> Tensor:
        """Mix the layers."""
        if self.n_layers == 1:
            return layers[-1]
        stacked = torch.stack(layers[-self.n_layers :])  # (n_layers, n_passes, n_tokens, body_width)
        return torch.einsum("l,lptw->ptw", self.weights.softmax(dim=0), stacked)


class QuestHead(nn.Module):
    """Read pooled passes and metadata.

    NOTE[WIDE & DEEP]: arXiv 1606.07792 trains a linear model beside a deep one; here the metadata joins the pooled text
    and both go through the same layers, so a hidden head can let them interact.

    Attributes:
        outputs: One network from pooled passes and metadata to all targets, or one for question targets and one for
            answer targets.
    """

    def __init__(self, options: ModelOptions, *, body_width: int, n_kinds: int, metadata_width: int) -> None:
        super().__init__()
        self.mix = LayerMix(n_layers=options.n_mixed_layers)
        self.pooling: Pooling = POOLINGS[options.pooling](body_width=body_width, hidden_width=options.hidden_width)
        width = n_kinds * self.pooling.output_width + metadata_width
        build = HEADS[options.head]
        self.outputs = nn.ModuleList(
            build(width, hidden_width=options.hidden_width, dropout=options.head_dropout)
            for _ in range(2 if options.use_split_head else 1)
        )
        self.n_kinds = n_kinds

    def pool(self, layers: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        """Pool the tokens of passes.

        Shape:
            Layers of (n_passes, n_tokens, body_width), mask (n_passes, n_tokens) -> (n_passes, output_width).
        """
        return self.pooling(self.mix(layers), mask)

    def forward(self, vectors: Tensor, rows: Tensor, kinds: Tensor, metadata: Tensor) -> Tensor:
        """Read pooled passes, (n_passes, output_width), and metadata, (batch_size, metadata_width).

        `rows` and `kinds`, (n_passes,), tell what each pass belongs to. Logits are (batch_size, n_targets).
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


def average_passes(vectors: Tensor, rows: Tensor, kinds: Tensor, *, n_rows: int, n_kinds: int) -> Tensor:
    """Average the passes of each row and kind: windows of one text are one text.

    Shape:
        vectors (n_passes, width), rows and kinds (n_passes,) -> (n_rows, n_kinds, width).
    """
    slots = rows * n_kinds + kinds
    sums = vectors.new_zeros(n_rows * n_kinds, vectors.shape[-1]).index_add(0, slots, vectors)
    counts = vectors.new_zeros(n_rows * n_kinds).index_add(0, slots, torch.ones_like(slots, dtype=vectors.dtype))
    return (sums / counts.clamp(min=1).unsqueeze(-1)).view(n_rows, n_kinds, -1)
