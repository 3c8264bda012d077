"""From every member's predictions to what is submitted: blend, host rates, exact ties."""

import json
from collections.abc import Mapping
from typing import Self

import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from questlib.blending import Blend
from questlib.hosts import HostRates
from questlib.ranks import FloatArray
from questlib.schema import ANSWER_TARGETS, QUESTION_TARGETS
from questlib.submission import spread_constant
from questlib.ties import RankTies

# A model that reads questions better need not read answers better.
_GROUPS = [0] * len(QUESTION_TARGETS) + [1] * len(ANSWER_TARGETS)


class Ensemble(BaseEstimator):
    """Blend models, scale rare targets by what their hosts have seen, then tie exactly.

    Attributes:
        members_: The names of the members, in the order they are blended.
        blend_: The fitted `Blend`.
        hosts_: The fitted `HostRates`.
        ties_: The fitted `RankTies`.
    """

    def fit(
        self, predictions: Mapping[str, FloatArray], targets: FloatArray, *, questions: npt.NDArray, hosts: npt.NDArray
    ) -> Self:
        """Learn from out-of-fold predictions by member, ratings, (n_rows, 30), questions and hosts, (n_rows,)."""
        self.members_ = list(predictions)
        self.blend_ = Blend(groups=_GROUPS).fit(list(predictions.values()), targets, questions=questions)
        self.hosts_ = HostRates().fit(hosts, targets)
        self.ties_ = RankTies().fit(self.blend(predictions, hosts=hosts), targets, questions=questions)
        return self

    def blend(self, predictions: Mapping[str, FloatArray], *, hosts: npt.NDArray) -> FloatArray:
        """Blend and scale the predictions of the members of `fit`, but leave every row its own place: in [0, 1]."""
        check_is_fitted(self)
        missing = [name for name in self.members_ if name not in predictions]
        if missing:
            raise ValueError(f"predictions must be those of {self.members_}, by name, however missing: {missing}")
        in_order = [predictions[name] for name in self.members_]
        return self.hosts_.transform(self.blend_.transform(in_order), hosts)

    def transform(self, predictions: Mapping[str, FloatArray], *, hosts: npt.NDArray) -> FloatArray:
        """Blend, scale and tie; arguments and shape as `blend`. What ties leave constant keeps the blend's order."""
        blended = self.blend(predictions, hosts=hosts)
        return spread_constant(self.ties_.transform(blended), by=blended)

    def to_json(self) -> str:
        """Write what was learned as JSON."""
        check_is_fitted(self)
        parts = {"blend": self.blend_.to_json(), "hosts": self.hosts_.to_json(), "ties": self.ties_.to_json()}
        return json.dumps({"members": self.members_} | {name: json.loads(part) for name, part in parts.items()})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        state = json.loads(text)
        ensemble = cls()
        ensemble.members_ = state["members"]
        ensemble.blend_ = Blend.from_json(json.dumps(state["blend"]))
        ensemble.hosts_ = HostRates.from_json(json.dumps(state["hosts"]))
        ensemble.ties_ = RankTies.from_json(json.dumps(state["ties"]))
        return ensemble
