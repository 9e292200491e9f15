"""Costs (PWR004) and work per watt (PWR005) of a part, and DC that is billed as AC (PWR014)."""

import re
from collections.abc import Iterator
from typing import Final

from spark_agent.agent.audit.case import Case, Remark, covered, is_part, metrics_of, names_of, title_of
from spark_agent.agent.audit.catalogue import Dimension, Extent
from spark_agent.agent.audit.claim import Query
from spark_agent.agent.audit.value import Deed
from spark_agent.agent.audit.words import Theme, themes


def cost(case: Case) -> Iterator[Remark]:
    """Yield costs of a machine from the energy of a part."""
    claim = case.claim
    unit = claim.unit or ""
    said = frozenset().union(*map(themes, (title_of(claim), *(query.legend for query, _ in case.judged))))
    said |= themes(claim.description) if _MONEY.search(claim.description) else frozenset()
    for query, judged in case.judged:
        value = judged.value
        named = themes(" ".join(judged.variables))
        priced = [act.value for act in judged.acts if act.deed is Deed.PRICED]
        if _PUE.search(title_of(claim)):
            # Power usage effectiveness: a facility's, over that of all its machines.
            priced += [act.other for act in judged.acts if act.deed is Deed.QUOTIENT]
        if not (priced or Theme.COST in said | named or unit.startswith("currency")):
            continue
        value = priced[0] if priced else value
        if not is_part(value) or _says_whose_energy(case, query):
            continue
        yield Remark(
            "PWR004",
            query,
            f"priced is the energy of {covered(value.extents)} ({metrics_of(value)}) and not that of the machine, "
            "which the bill is for",
            "increase(gb10_system_energy_joules_total[24h]) / 3.6e6 * 1.1 * PRICE_PER_KWH",
        )
        return


_PUE: Final = re.compile(r"\bPUE\b")
#: What is about money in prose as well, where instructions may cost energy.
_MONEY: Final = re.compile(
    r"[$€£¥]|\b(?:USD|EUR|CO2e?|PUE|kWh|price|tariff|bill|billing|carbon|Preis|Tarif|prix|precio)\b|コスト|料金|电费|成本",
    re.IGNORECASE,
)
_GPU_ENERGY: Final = re.compile(
    r"\bgpus?\b[\s\-_:()]*(?:rail|only|alone|nur|seul|solo)?[\s\-_]*(?:power|energy|electricity|watts?|kwh|joules?|strom|energie"
    r"|énergie|energía|電力|功耗|电费|能耗)|gpu[- ]only|\bonly the gpu|gpu\s*(?:電力|功耗|电费|能耗)"
    r"|(?:power|energy|electricity|consumption) of (?:the |all )?gpus?|(?:énergie|puissance) (?:du|des) gpu",
    re.IGNORECASE,
)


def _says_whose_energy(case: Case, query: Query) -> bool:
    """Return whether a cost says that it is the GPU's energy only."""
    told = f"{title_of(case.claim)}\n{case.claim.description}\n{query.legend}".replace("_", " ")
    return bool(_GPU_ENERGY.search(told))


def efficiency(case: Case) -> Iterator[Remark]:
    """Yield work per watt of a part that does not say of which."""
    for query, judged in case.judged:
        acts = [act for act in judged.acts if act.deed is Deed.EFFICIENCY]
        is_work = judged.value.dimension is Dimension.EFFICIENCY or any(
            act.other.dimension is Dimension.WORK for act in acts
        )
        # A work that is recorded has its act elsewhere.
        value = acts[0].value if acts else judged.value
        own = case.said_of(query, judged)
        if not (is_work or (acts and Theme.EFFICIENCY in own)) or not is_part(value):
            continue
        if not own & names_of(value.extents):
            yield Remark(
                "PWR005",
                query,
                f"this is work per watt of {covered(value.extents)} ({metrics_of(value)}): no figure to compare with a "
                "machine that was measured whole",
                'gb10_system_power_watts as the denominator, or "of GPU power" in the title',
            )


def ac_dc(case: Case) -> Iterator[Remark]:
    """Yield DC power that is taken for power at the wall."""
    for query, judged in case.judged:
        value = judged.value
        measured = {source for source in value.sources if source.metric.exporter in _DC_EXPORTERS}
        if not measured or not value.extents <= {Extent.SYSTEM, Extent.DC_INPUT}:
            continue
        title = themes(title_of(case.claim)) | themes(query.legend)
        said = case.said_of(query, judged) | themes(" ".join(judged.variables))
        if Theme.ESTIMATE in said or any(1.02 <= by <= 1.3 for by in value.scaled):
            continue  # the adapter's loss is in it
        is_priced = any(act.deed is Deed.PRICED for act in judged.acts) or Theme.COST in said
        if Theme.WALL in title or is_priced:
            what = "a tariff is for AC" if is_priced else "the wall is AC"
            yield Remark(
                "PWR014",
                query,
                f"{metrics_of(value)} is DC, behind the adapter, and {what}: an adapter of 88 to 94 % efficiency takes "
                "6 to 14 % more",
                '* 1.1 and "estimate" in the title, or a meter at the wall',
            )


_DC_EXPORTERS: Final = frozenset(("spark-agent", "node_exporter"))
