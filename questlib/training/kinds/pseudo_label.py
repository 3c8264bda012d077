"""Fine-tuning on rows without ratings too: the model rates them as it stands, and learns from all."""

from dataclasses import replace

import numpy as np

from questlib.batches import JoinedRows
from questlib.model.prediction import predict
from questlib.training.kinds.fine_tune import FineTune


class PseudoLabel(FineTune):
    """Rate the job's unrated rows, then fine-tune on them and on those with ratings."""

    def train(self) -> list[dict]:
        """Train the job's model in place; where there are no unrated rows, as while speed is measured, as usual."""
        job = self.job
        if job.unrated_rows is not None and len(job.unrated_rows):
            if not job.tape.labels:  # a training that goes on learns from what it began with
                job.tape.labels = predict(
                    job.model, job.unrated_rows, job.collator, batch_size=2 * job.settings.batch_size,
                    precision=job.precision,
                ).tolist()  # fmt: skip
            joined = JoinedRows(job.train_rows, job.unrated_rows, targets=np.array(job.tape.labels))
            self.job = replace(job, train_rows=joined)
        return super().train()
