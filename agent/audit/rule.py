"""The rules as a table: what each is called, how bad it is, and what it finds. `rules` judges by them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from spark_agent.agent.audit.claim import Severity


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of misreading."""

    id: str
    name: str
    severity: Severity
    what: str


_ERROR, _WARNING, _INFO = Severity.ERROR, Severity.WARNING, Severity.INFO

#: All of them. Where one is found milder or graver than usual, the finding says so.
RULES: Final[Mapping[str, Rule]] = {
    rule.id: rule
    for rule in (
        Rule("PWR000", "not-parsed", _INFO, "an expression that cannot be read, so nothing can be said of it"),
        Rule("PWR001", "scope-label", _WARNING, "a part of the machine under a name that says the whole"),
        Rule("PWR002", "scope-limit", _WARNING, "held against a number that this reading cannot reach"),
        Rule("PWR003", "headroom", _ERROR, "headroom or share of a limit that belongs to something else"),
        Rule("PWR004", "cost", _WARNING, "cost, carbon or PUE of a machine from the energy of a part"),
        Rule("PWR005", "efficiency", _INFO, "work per watt of a part, without saying of which"),
        Rule("PWR006", "unit", _ERROR, "a unit that is not the metric's"),
        Rule("PWR007", "absent-limit", _WARNING, "rests on a metric that a GB10 never has"),
        Rule("PWR008", "gauge-counter", _ERROR, "a rate of a gauge, or a counter shown as a power"),
        Rule("PWR009", "nested-sum", _ERROR, "a sum of things that contain one another"),
        Rule("PWR010", "zero-fill", _WARNING, "0 where nothing was measured"),
        Rule("PWR011", "scope-switch", _WARNING, "one name for different scopes, depending on what there is"),
        Rule("PWR012", "constant-plus", _WARNING, "a reading and a guess, shown as a reading"),
        Rule("PWR013", "mean-times-time", _INFO, "an energy that counts gaps as load"),
        Rule("PWR014", "ac-dc", _INFO, "DC power taken for power at the wall"),
        Rule("PWR015", "entity", _WARNING, "one part under the name of another"),
    )
}
