"""So much in a minute: a pure count of what passed of late."""

from __future__ import annotations

from collections import deque

WINDOW_S = 60.0


class Charge:
    """Something that passed at *at*, and what it counts for; *counted* while that is within the last minute."""

    __slots__ = ("amount", "at", "counted")

    def __init__(self, at: float, amount: float) -> None:
        self.at = at
        self.amount = amount
        self.counted = True


class Window:
    """Lets at most *limit* pass in any 60 seconds: those after a moment up to and with the moment a minute later.

    It keeps what passed in the last minute and sums it up (a sliding log). A token bucket, which providers say they
    use (Anthropic: "your capacity is continuously replenished", docs "Rate limits"; OpenAI: limits "can be quantized,
    meaning they are enforced over shorter periods of time", guide "Rate limits"), lets twice its limit pass in the
    minute after a pause, and can not take an estimate back without giving what has flowed in since twice. The log does
    neither: a charge is corrected where it stands. It costs a few words for each call of the last minute.

    What alone is more than the limit passes alone, in a minute of its own: it is an estimate, and the provider decides.
    What was charged too low, and corrected since, may put a minute above the limit; nothing passes then until it is
    below again.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._log: deque[Charge] = deque()
        self._used = 0.0

    def free_at(
        self, now: float, amount: float, ahead: float = 0.0, share: float = 1.0, *, evenly: bool = False
    ) -> float:
        """The soonest moment at which *amount* may pass when so much *ahead* of it has passed; *now*, if at once.

        With a *share* below 1 only that share of the limit may pass; *evenly*, spread over the minute.
        """
        self._forget(now)
        allowed = max(1.0, self.limit * share)
        minutes, rest = divmod(ahead + min(amount, allowed), allowed)
        if rest == 0:
            minutes, rest = minutes - 1, allowed
        over = self._used + rest - allowed
        at = (now if over <= 0 else self._gone_at(over, now)) + minutes * WINDOW_S
        if evenly and self._log:
            last = self._log[-1]
            at = max(at, last.at + WINDOW_S * min(1.0, last.amount / allowed))
        return at

    def charge(self, now: float, amount: float) -> Charge:
        """Let *amount* pass now."""
        charge = Charge(now, amount)
        self._log.append(charge)
        self._used += amount
        return charge

    def correct(self, charge: Charge, amount: float) -> None:
        """It was *amount* in truth."""
        if charge.counted:
            self._used += amount - charge.amount
        charge.amount = amount

    def undo(self, charge: Charge) -> None:
        """It did not pass."""
        self.correct(charge, 0)
        charge.counted = False
        while self._log and not self._log[-1].counted:
            self._log.pop()

    def end(self) -> None:
        """It counts no longer; nor do its charges in another, where they are corrected."""
        for charge in self._log:
            charge.counted = False

    def _gone_at(self, amount: float, now: float) -> float:
        """When so much of what counts now will count no more; what would pass now is taken to have passed."""
        for charge in self._log:
            amount -= charge.amount
            if amount <= 0:
                return charge.at + WINDOW_S
        return now + WINDOW_S

    def _forget(self, now: float) -> None:
        log = self._log
        while log and log[0].at + WINDOW_S <= now:
            gone = log.popleft()
            gone.counted = False
            self._used -= gone.amount
        if not log:
            self._used = 0.0
