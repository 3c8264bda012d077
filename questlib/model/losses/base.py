"""What a loss is."""

from collections.abc import Mapping

from torch import Tensor

from questlib.schema import TARGETS


class Loss:
    """From logits and ratings to a number; training and evaluation use the same object.

    Args:
        target_weights: Weight by target name; a target that is not named weighs 1.

    Attributes:
        weights: In submission order, with mean 1, so that they do not change the learning rate's meaning.
        compares_rows: Whether what a row adds hangs on the others of its batch, which must then be computed together.
    """

    compares_rows = False

    def __init__(self, target_weights: Mapping[str, float]) -> None:
        spelled = [float(target_weights.get(name, 1.0)) for name in TARGETS]
        self.weights = [weight * len(spelled) / sum(spelled) for weight in spelled]

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            logits: Shape (batch_size, n_targets), in 32 bits at least.
            targets: Ratings in [0, 1], same shape; a rating is the share of raters who said yes.

        Returns:
            A scalar, the mean over rows; finite wherever the logits are.
        """
        raise NotImplementedError
