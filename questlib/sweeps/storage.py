"""Where a study is stored: a file of the sweep's folder, or a database that several machines share."""

import random
import re
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.trial import FrozenTrial
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
    SQLAlchemyError,
)

# A worker only waits for its kernel, so its heart beats in time, however busy the machine is. A laptop that sleeps for
# longer than the grace loses its trial to another worker, which takes it up where it was.
_HEARTBEAT_SECONDS, GRACE_SECONDS = 20, 120
# A server that restarts is waited for.
_PATIENCE_SECONDS, _PATIENCE_TO_BEGIN = 300.0, 15.0
DATABASE = "study.db"


class PatientStorage(RDBStorage):
    """A relational storage that waits while its server restarts, and a SQLite file that several processes may write.

    SQLite is what a sweep uses by default: after a kill the next transaction finds the file whole, which an appended
    journal need not be, and only relational storages have heartbeats.

    Args:
        url: As SQLAlchemy takes it.
    """

    def __init__(self, url: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            is_file = url.startswith("sqlite")
            # Of those that begin at the same moment one makes the tables; the others find them at their second try.
            _wait_out(super().__init__, faults=(SQLAlchemyError,), patience=_PATIENCE_TO_BEGIN)(
                url.replace("{", "{{").replace("}", "}}"),  # no templates
                engine_kwargs={"connect_args": {"timeout": 60}} if is_file else {"pool_pre_ping": True},
                heartbeat_interval=_HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=requeue,
            )
        if is_file:
            # A transaction that reads first and then writes would find the file locked by another one like it, or take
            # a trial that the other one took: each begins as a writer, and they wait for one another.
            event.listen(self.engine, "connect", _leave_transactions_to_us)
            event.listen(self.engine, "begin", _begin_as_writer)
            self.engine.dispose()

    def __getattribute__(self, name: str) -> Any:  # noqa: ANN401
        value = super().__getattribute__(name)
        return _wait_out(value) if name in _ON_SERVER else value


# The last one where Optuna itself had caught one of the others, and asked once more.
_AWAY = (OperationalError, InterfaceError, PendingRollbackError)
_ON_SERVER = {
    name
    for kind in (BaseStorage, BaseHeartbeat)
    for name, value in vars(kind).items()
    if callable(value) and not name.startswith("__") and name not in ("remove_session", "get_heartbeat_interval")
} | {"_create_new_trial", "_get_trials"}


def _leave_transactions_to_us(connection: Any, record: object) -> None:  # noqa: ANN401
    connection.isolation_level = None


def _begin_as_writer(connection: Any) -> None:  # noqa: ANN401
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _wait_out(
    call: Callable[..., Any], *, faults: tuple[type[Exception], ...] = _AWAY, patience: float = _PATIENCE_SECONDS
) -> Callable[..., Any]:
    def patient(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        start, pause = time.monotonic(), 0.2
        while True:
            try:
                return call(*arguments, **options)
            except KeyboardInterrupt as error:
                # Its frames hold a cursor, and so SQLite's lock, which all wait for, this process too.
                traceback.clear_frames(error.__traceback__)
                raise
            except (StorageInternalError, SQLAlchemyError) as error:
                told = error.__cause__ if isinstance(error, StorageInternalError) else error
                if not isinstance(told, faults) or time.monotonic() - start > patience:
                    raise
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, 5.0)

    return patient


def requeue(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a trial that was broken off once more, with the parameters and evaluations that it has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        RetryHeartbeatStaleTrialCallback(max_retry=None, inherit_intermediate_values=True)(study, trial)


def open_storage(folder: Path, url: str | None) -> PatientStorage:
    """Open the storage that a URL names, or the file in a sweep's folder where it is None."""
    url = url or f"sqlite:///{quote(str((folder / DATABASE).resolve()))}"  # a folder may be called anything
    _check_url(url)
    try:
        return PatientStorage(url)
    except (SQLAlchemyError, StorageInternalError, ImportError) as error:
        shown, why = make_url(url).render_as_string(hide_password=True), str(error).split("\n")[0]
        raise RuntimeError(f"the storage {shown} must be a database that can be opened, however: {why}") from error


def _check_url(url: str) -> None:
    # What no waiting mends.
    must = "a storage must be postgresql+psycopg://user@host/database or sqlite:///file, however:"
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, ValueError) as error:  # the latter of a port
        raise ValueError(f"{must} {re.sub('//.*@', '//***@', url)}") from error
    if parsed.get_backend_name() != "sqlite":
        return
    if not parsed.database or ":memory:" in url or "mode=memory" in url:
        raise ValueError(f"{must} {url} lies in memory, where no other worker sees it")
    if not parsed.database.startswith("file:") and not Path(parsed.database).parent.is_dir():
        raise ValueError(f"{must} {url} lies in no folder that there is; make it, or name another")
