"""What to write instead, as an expression of this agent's metrics."""

import re
from dataclasses import replace

from spark_agent.agent.audit.case import Case
from spark_agent.agent.audit.catalogue import Dimension, Extent
from spark_agent.agent.audit.claim import Query, Shape
from spark_agent.agent.audit.scope import GPU_LABELS, HOST_LABELS
from spark_agent.agent.audit.shown import GRAFANA_UNITS
from spark_agent.agent.audit.value import Span, Value


def whole_of(value: Value, case: Case) -> str:
    """Return the expression that measures the machine."""
    if value.dimension is Dimension.ENERGY:
        span = "$__range" if case.claim.shape is Shape.PANEL else "1d"
        increase = f"increase(gb10_system_energy_joules_total[{span}])"
        return f"{_added(value, increase)}{_per(value.factor or 1.0)}"
    whole = _added(value, "gb10_system_power_watts")
    return f"{whole} / 1000" if value.factor and abs(value.factor / 1e-3 - 1) < 0.01 else whole


def alert_of(value: Value) -> str:
    """Return an alert on the whole: a threshold for a part is none for it."""
    return alert_instead(replace(value, sources=frozenset()))


def alert_instead(value: Value) -> str:
    """Return the alert on a limit that can be reached."""
    if value.extents <= {Extent.SYSTEM, Extent.DC_INPUT, Extent.WALL}:
        return 'gb10_system_power_watts > on (instance) (0.9 * gb10_power_limit_watts{limit="syspl1"})'
    return 'gb10_soc_power_watts >= on (instance) (0.98 * gb10_power_limit_watts{limit="pl1"})'


def share_instead(value: Value) -> str:
    """Return the share of a limit whose scope is the reading's."""
    if value.extents <= {Extent.SYSTEM, Extent.DC_INPUT, Extent.WALL}:
        return 'gb10_system_power_watts / on (instance) gb10_power_limit_watts{limit="syspl1"}'
    return 'gb10_soc_power_watts / on (instance) gb10_power_limit_watts{limit="pl1"}'


def energy_instead(value: Value, query: Query, case: Case) -> str:
    """Return the increase of a counter, over the range that the expression has, in the unit that is shown."""
    scope = "gpu_nvml" if value.extents == {Extent.GPU} else "system"
    span = re.search(r"\[([^\]:]+)[\]:]", query.expr)
    _, factor = GRAFANA_UNITS.get(case.unit_of(query), (None, 1 / 3.6e6))
    increase = f"increase(gb10_{scope}_energy_joules_total[{span[1] if span else '24h'}])"
    return f"{_added(value, increase)}{_per(factor)}"


def _by(value: Value) -> str:
    """Return the aggregation that keeps this agent's machines apart as the expression did."""
    labels = dict.fromkeys("instance" if label in HOST_LABELS else label for label in value.by)
    kept = [label for label in labels if label not in GPU_LABELS]
    return f"sum by ({', '.join(kept)}) " if kept else "sum"


def _added(value: Value, expr: str) -> str:
    """Return an expression, added up where the value was."""
    return f"{_by(value)}({expr})" if value.by or value.span is not Span.ONE else expr


def _per(factor: float) -> str:
    return "" if factor == 1 else f" / {1 / factor:g}".replace("e+06", "e6")
