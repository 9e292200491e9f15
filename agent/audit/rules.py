"""The rules PWR000 to PWR015: what a claim says, held against what its expressions measure."""

from collections.abc import Callable, Iterator
from typing import Final

from spark_agent.agent.audit.case import Case, Remark
from spark_agent.agent.audit.limit_rules import absent_limit, headroom, scope_limit
from spark_agent.agent.audit.money_rules import ac_dc, cost, efficiency
from spark_agent.agent.audit.part_rules import entity, scope_label
from spark_agent.agent.audit.sum_rules import constant_plus, mean_times_time, nested_sum, scope_switch, zero_fill
from spark_agent.agent.audit.unit_rules import gauge_counter, unit

_CHECKS: Final[tuple[Callable[[Case], Iterator[Remark]], ...]] = (
    scope_label, scope_limit, headroom, cost, efficiency, unit, absent_limit, gauge_counter, nested_sum, zero_fill,
    scope_switch, constant_plus, mean_times_time, ac_dc, entity,
)  # fmt: skip


def check(case: Case) -> Iterator[Remark]:
    """Yield what is wrong with a claim, each rule at most once for a query."""
    if not any(judged.value.sources or judged.acts for _, judged in case.judged):
        return  # nothing of power is in it
    seen = set()
    for rule in _CHECKS:
        for remark in rule(case):
            key = remark.rule, remark.query.at
            if key not in seen:
                seen.add(key)
                yield remark
