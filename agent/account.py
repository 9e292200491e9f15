"""One account of energy: a register or a power, reading after reading. Pure arithmetic, whatever it is of.

Nothing is guessed: what may hide one more wrap, or lies between two beginnings, is uncovered. A step that no machine
could have made is not believed until a second reading agrees with it.
"""

from dataclasses import replace
from typing import Final

from spark_agent.collectors import immutable

#: A register that has not moved for as long as this, in seconds, stands still; a GB10's move each tenth of a second.
STILL_SECONDS: Final = 60.0
#: Readings nearer to each other than this, in seconds, are the same one, told again.
SAME_SECONDS: Final = 1e-3

# Registers count in steps, and a look is not taken at one instant: as if it had lasted so many seconds more.
_BOUND_SLACK: Final = 1.0


@immutable
class Sample:
    """A register in joules, or a power in watts, and where it stands: ``at`` and ``asleep`` are seconds of the axis."""

    value: float
    at: float
    asleep: float
    epoch: int
    driver: str = ""


@immutable
class Account:
    """What is known so far, in joules and seconds, and the reading from which it goes on.

    A reading that cannot follow from the ``last`` is in ``doubt`` until another one tells which of the two was wrong.
    One that is no further is ``seen``; when the register moves, it tells for how long it had stood still.
    """

    joules: float = 0.0
    covered: float = 0.0
    uncovered: float = 0.0
    resets: int = 0
    last: Sample | None = None
    doubt: Sample | None = None
    seen: Sample | None = None
    source: str = ""
    rejected: int = 0


@immutable
class Register:
    """What a register can do: wrap at so many joules, if at all, and move by so many watts at least and at most."""

    most: float
    least: float = 0.0
    wrap: float | None = None

    def steps(self, before: float, now: float, seconds: float) -> list[float]:
        """Return by how many joules it may have moved: none if that cannot be, two if one more wrap may be hidden."""
        most = self.most * (seconds + _BOUND_SLACK)
        step = now - before
        if self.wrap is None:
            return [step] if 0 <= step <= most else []
        first = step if step >= 0 else step + self.wrap
        return [joules for joules in (first, first + self.wrap) if joules <= most]


def count(account: Account, now: Sample, register: Register) -> Account:
    """Go on with a register's next reading."""
    last = account.last
    if last is None:
        return replace(account, last=now)
    if (now.epoch, now.driver) != (last.epoch, last.driver):
        return _anew(account, now)
    elapsed = now.at - last.at
    if elapsed <= SAME_SECONDS:
        return account
    steps = register.steps(last.value, now.value, elapsed)
    if not steps:
        return _doubt(account, now, register)
    if account.doubt:
        account = replace(account, doubt=None, rejected=account.rejected + 1)
    if len(steps) > 1:
        return _gone_on(account, now, uncovered=elapsed)
    joules = steps[0]
    if not joules:
        # Not renewed yet, or it stands still: when it moves, it tells.
        return replace(account, seen=now)
    seen, since = account.seen, last
    if seen and seen.at - last.at > STILL_SECONDS and register.steps(last.value, now.value, now.at - seen.at):
        since = seen
    awake = now.at - since.at - (now.asleep - since.asleep)
    # Below what is always drawn, it stood still for some of the time, and nobody knows for how much.
    covered = awake if joules >= register.least * awake else 0.0
    return _gone_on(account, now, joules, covered, elapsed - covered)


def integrate(account: Account, now: Sample, gap: float) -> Account:
    """Go on with the next power, in watts, by the trapezoid; a longer gap than ``gap`` seconds is not spanned."""
    last = account.last
    if last is None:
        return replace(account, last=now)
    if now.epoch != last.epoch:
        return _anew(account, now)
    elapsed = now.at - last.at
    if elapsed <= SAME_SECONDS:
        return account
    if elapsed > gap or now.asleep != last.asleep:
        return _gone_on(account, now, uncovered=elapsed)
    return _gone_on(account, now, elapsed * (last.value + now.value) / 2, elapsed)


def _gone_on(
    account: Account, now: Sample, joules: float = 0.0, covered: float = 0.0, uncovered: float = 0.0
) -> Account:
    return Account(
        account.joules + joules,
        account.covered + covered,
        account.uncovered + uncovered,
        account.resets,
        now,
        None,
        None,
        account.source,
        account.rejected,
    )


def _anew(account: Account, now: Sample) -> Account:
    """Begin at another number; what was between the two nobody knows."""
    elapsed = max(0.0, now.at - account.last.at) if account.last else 0.0
    return replace(_gone_on(account, now, uncovered=elapsed), resets=account.resets + 1)


def _doubt(account: Account, now: Sample, register: Register) -> Account:
    doubt = account.doubt
    if doubt is None:
        return replace(account, doubt=now)
    elapsed = now.at - doubt.at
    if elapsed <= SAME_SECONDS:
        return account
    if len(register.steps(doubt.value, now.value, elapsed)) == 1:
        # Two that agree with each other: the count began anew before the first of them.
        return count(_anew(account, doubt), now, register)
    return replace(account, doubt=now, rejected=account.rejected + 1)
