"""An error told once more, to somebody else who has waited for the same."""

from __future__ import annotations

import copy

from .errors import AllProvidersFailed, NotPaid, ProviderError


def retold(error: BaseException, *, led: bool) -> BaseException:
    """*error* to be raised once more, by itself: one that is raised in two tasks mixes up what each of them tells.

    It tells of no attempts, unless it is for who *led*.
    """
    try:
        own = _parted(error, led=led) if isinstance(error, AllProvidersFailed) else copy.copy(error)
    except Exception:  # noqa: BLE001 - not made as ours are, so a bug: it may be raised as it is
        return error
    if isinstance(own, ProviderError | NotPaid) and not led:
        own.attempts = ()
    cause = error.__cause__
    own.__cause__ = None if cause is None else retold(cause, led=led)
    return own.with_traceback(error.__traceback__)


def _parted(error: AllProvidersFailed, *, led: bool) -> AllProvidersFailed:
    copies = [retold(each, led=led) for each in error.exceptions]
    own = error.derive([each for each in copies if isinstance(each, ProviderError)])
    own.__dict__.update(error.__dict__)
    return own
