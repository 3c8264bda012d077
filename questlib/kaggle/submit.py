"""From a version that was pushed to its scores: submitted once, waited for, told."""

import json
import logging
import time
from dataclasses import dataclass

from questlib.kaggle.client import advise, code, run_client
from questlib.kaggle.kernels import COMPETITION
from questlib.kaggle.output import refuse_unsubmittable
from questlib.kaggle.push import Pushed
from questlib.run_folder import SUBMISSION

logger = logging.getLogger(__name__)

_PAGE = f"https://www.kaggle.com/competitions/{COMPETITION}"
_RULES = f"accept the competition's rules, once, at {_PAGE}/rules"
_PHONE = "verify your phone, once, at https://www.kaggle.com/settings"
_REMEDIES = {
    r"rules": _RULES,
    r"[Pp]hone|[Vv]erif": _PHONE,
    r"allowance|daily|\b0 submissions remaining": "a day's submissions are used up: submit again after midnight UTC",
    rf"{code(403)}|denied|[Ff]orbidden": f"the site does not say which of two things is missing: {_RULES}; {_PHONE}",
    rf"{code(404)}|[Nn]ot found": "the site must know this version of the kernel: push it again with ARGS=--again",
}
_POLL = 60.0  # seconds
_APPEARS = 120.0  # seconds until what was accepted must be listed


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A submission as the site lists it."""

    ref: int  # the site's own number
    told: str  # with which message it was made
    state: str  # "PENDING", "COMPLETE" or "ERROR"
    public_score: str  # empty until it is known
    private_score: str


def submit(pushed: Pushed, *, message: str, again: bool) -> Submission:
    """Submit a version of a kernel, unless it was submitted before.

    Args:
        pushed: The version.
        message: What the site shows beside it; the version and what it holds are added.
        again: Whether what was submitted before is submitted anew.

    Returns:
        The submission.

    Raises:
        RuntimeError: If the version's run is not complete, or the site does not take the submission.
        ValueError: If the version's submission is not what the competition takes.
    """
    mark = f"version {pushed.version}, {pushed.contents[:12]}"
    before = list_submissions()
    same = [one for one in before if one.told.endswith(mark)]
    if same and not again:
        logger.info("%s of %s was submitted before, as %d", mark, pushed.id, same[0].ref)
        return same[0]
    refuse_unsubmittable(pushed.id)
    named = ("-k", pushed.id, "-v", str(pushed.version), "-f", SUBMISSION, "-m", f"{message}: {mark}")
    said = run_client("competitions", "submit", "-c", COMPETITION, *named, remedies=_REMEDIES)
    # The client may say that all went well where nothing was taken: what counts is what the site lists.
    refs, deadline = {one.ref for one in before}, time.monotonic() + _APPEARS
    while True:
        listed = [one for one in list_submissions() if one.ref not in refs and one.told.endswith(mark)]
        if listed:
            return listed[0]
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"{mark} of {pushed.id} must be listed at {_PAGE}/submissions after it was submitted, however it is "
                f"not; the client said: {advise(said, _REMEDIES)}"
            )
        time.sleep(min(_POLL, _APPEARS / 4))


def await_score(submission: Submission, *, patience: float) -> Submission:
    """Wait until a submission is scored; it goes on at the site, whatever becomes of the one who waits.

    Args:
        submission: What was submitted.
        patience: Seconds until it must be scored.

    Returns:
        The submission with its scores.

    Raises:
        RuntimeError: If it could not be scored, or was not in time.
    """
    start = time.monotonic()
    while submission.state == "PENDING":
        waited = time.monotonic() - start
        if waited > patience:
            raise RuntimeError(
                f"submission {submission.ref} must be scored within {patience:.0f} s, however it is pending; "
                "`make submit` again waits on, and submits nothing anew"
            )
        logger.info("submission %d: pending for %.0f minutes", submission.ref, waited / 60)
        time.sleep(min(_POLL, patience / 4))
        try:
            listed = [one for one in list_submissions() if one.ref == submission.ref]
        except RuntimeError as error:  # hours of waiting must not end with one answer that did not come
            logger.warning("asking again: %s", error)
            continue
        submission = listed[0] if listed else submission
    if submission.state != "COMPLETE":
        raise RuntimeError(
            f"submission {submission.ref} must be scored, however the site says {submission.state}; "
            f"{_PAGE}/submissions tells why, ARGS=--again submits the same version anew"
        )
    return submission


def list_submissions() -> list[Submission]:
    """List what was submitted to the competition, the newest first.

    Raises:
        RuntimeError: If the site does not say.
    """
    named = ("-c", COMPETITION, "--format", "json", "--page-size", "200")
    said = run_client("competitions", "submissions", *named, remedies=_REMEDIES)
    if "No submissions found" in said:
        return []
    try:
        entries = json.JSONDecoder().raw_decode(said, said.index("["))[0]
        return [
            Submission(
                ref=int(entry["ref"]),
                told=entry["description"] or "",
                state=entry["status"].split(".")[-1],
                public_score=entry["publicScore"] or "",
                private_score=entry["privateScore"] or "",
            )
            for entry in entries
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RuntimeError(f"the submissions must be listed as JSON, however: {advise(said, _REMEDIES)}") from error
