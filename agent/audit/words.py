"""What titles, legends and descriptions claim, in six languages: which words speak of the box, and which of a part.

English, German, French, Spanish, Chinese and Japanese. Names are split first (``HighChassisPower``, ``node_power``).
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final


class Theme(StrEnum):
    """What a text speaks of."""

    #: The machine, or more than one: host, node, chassis, wall.
    WHOLE = "whole"
    #: "Total" and its kin, which make a claim of the whole only beside power.
    TOTAL = "total"
    #: What a meter counts: kWh, electricity.
    METERED = "metered"
    POWER = "power"
    GPU = "gpu"
    #: Words for a part that may be a sensor's name as well: package, board, rail.
    PART = "part"
    CPU = "cpu"
    MEMORY = "memory"
    COST = "cost"
    #: Work per watt or joule.
    EFFICIENCY = "efficiency"
    ESTIMATE = "estimate"
    #: Power at the wall, in AC.
    WALL = "wall"
    #: A Spark, by name.
    SPARK = "spark"
    HEADROOM = "headroom"


# Alphabetic words are matched whole, with the endings given; those of Chinese and Japanese wherever they stand.
_ALPHABETIC: Final[Mapping[Theme, str]] = {
    Theme.WHOLE: r"""
        systems? hosts? hostname nodes? servers? chassis machines? box boxes computers? clusters? racks? fleet
        facility workstations? desktops? laptops? pcs? appliances? towers? farm homelab
        dgx datacent(er|re)s? site entire whole infrastructure psu psus
        gesamtsystem systemleistung knoten rechner(s|n)? servern? maschinen? geräte?s? anlage rechenzentrum clustern?
        systèmes? hôtes? nœuds? noeuds? serveurs? châssis chassis grappes? boîtier ordinateurs? équipements?
        sistemas? nodos? servidor(es)? máquinas? maquinas? clúster(es)? equipos? chasis ordenador(es)? anfitri(ón|ones)
    """,
    Theme.TOTAL: r"""
        totals? overall combined aggregated? sum all
        gesamt gesamte[rsn]? gesamtleistung gesamtverbrauch gesamtstromverbrauch gesamtenergie summe insgesamt
        totale?s? totaux ensemble globale?s? somme
        conjunto suma
    """,
    Theme.METERED: r"""
        kwh mwh electricity electrical stromverbrauch stromzähler électricité electricidad
    """,
    Theme.POWER: r"""
        power powers watts? wattage kw kwh wh energy energies joules? consumption draw draws drawn usage electricity
        leistung leistungsaufnahme stromverbrauch verbrauch energie energieverbrauch strom gesamtleistung
        gesamtverbrauch systemleistung
        puissance consommation énergie électrique électricité
        potencia consumo energía electricidad vatios?
    """,
    Theme.GPU: r"""
        gpus? vgpus? igpus? dgpus? egpus? gpgpu graphics cards? accelerators? nvml dcgm nvidiasmi geforce rtx gtx
        quadro radeon instinct cuda vram a100 h100 h200 b200 l40s? mi\d{3}x? t4 v100
        grafikkarten? karten? grafikprozessor(en)? beschleuniger
        accélérateurs?
        acelerador(es)?
    """,
    Theme.PART: r"""
        packages? pkg board boards rails? sockets? chips? soc die dies module modules devices? components?
        core cores dram uncore rapl
        paket platine schiene baustein komponenten?
        puce carte cartes rail
        placa placas chip
    """,
    Theme.CPU: r"""
        cpus? processors? rapl
        prozessor(en|s)? hauptprozessor
        processeurs?
        procesador(es)?
    """,
    Theme.MEMORY: r"""
        dram ram memory speicher arbeitsspeicher mémoire memoria ssd nvme nic network netzwerk réseau disks?
    """,
    Theme.COST: r"""
        costs? prices? pricing tariffs? bills? billing usd eur gbp chf jpy cny dollars? euros? cents? spend spending
        expenses? co2 co2e co2eq carbon emissions? pue footprint
        kosten stromkosten energiekosten preis preise rechnung tarif emissionen kohlenstoff
        coûts? couts? prix factures? facturation carbone émissions
        costos? costes? precios? facturas? facturación tarifas? carbono emisiones
    """,
    Theme.EFFICIENCY: r"""
        efficiency efficient effizienz energieeffizienz efficacité rendement eficiencia
    """,
    Theme.ESTIMATE: r"""
        estimated? estimates estimation estimating approx approximate(ly)? approximation modell?ed modelled projected
        assumed assumption guess rough roughly ca circa calculated
        geschätzte?[rsn]? schätzung geschätzt ungefähr
        estimée?s? estimative approximative
        estimad[oa]s? estimación estimacion aproximad[oa]
    """,
    Theme.WALL: r"""
        wall outlet mains ac circuit breaker
        steckdose stromkreis sicherung netzanschluss wandsteckdose
        prise secteur
        enchufe
    """,
    Theme.SPARK: r"""
        gb10 dgxspark
    """,
    Theme.HEADROOM: r"""
        headroom remaining left spare budget reserve
        reserve spielraum übrig
        marge restante? restant
        margen restante disponible
    """,
}
_ANYWHERE: Final[Mapping[Theme, str]] = {
    Theme.WHOLE: r"""
        系统|系統|主机|主機|节点|節點|服务器|伺服器|机箱|機箱|集群|叢集|整机|整機|机器|機器|设备|設備|电源|全机|机房
        |システム|ホスト|ノード|サーバ|筐体|クラスタ|本体|マシン|装置|パソコン
        |(system|gehäuse|rechner|knoten|server|cluster|rack|geräte?|maschinen|anlagen|host|schrank)(leistung|verbrauch|strom|energie|last)
        |power\s+suppl|data\s+cent(er|re)s?|(?<![a-z])it[\s-]+(load|power|equipment)|dgx\s+sparks?
    """,
    Theme.TOTAL: r"""
        总|總|全部|合计|合計|総|全体|トータル
    """,
    Theme.METERED: r"""
        电量|電量|用电|用電|电费|電費|電力量|千瓦时|度电
    """,
    Theme.POWER: r"""
        功耗|功率|能耗|电量|電量|用电|瓦|耗电|耗電|電力|ワット|エネルギー|能量
        |(?<=[a-zß-ÿ])(leistung|verbrauch|leistungsaufnahme)(?![^\W_])
    """,
    Theme.GPU: r"""
        显卡|顯卡|显示卡|顯示卡|グラボ|ビデオカード|加速卡|图形处理|圖形|グラフィック|nvidia[-_\s.]+smi|(?<![a-z])gpu|gpu(?![a-z])|cartes?\s+graphique|tarjetas?\s+gr
        |grafikkarten?leistung
        |nvidia\s+(a\d|h\d|l\d|t4|tesla|geforce)|tesla\s+[a-z]\d
    """,
    Theme.PART: r"""
        封装|封裝|板卡|パッケージ|チップ|芯片|晶片
    """,
    Theme.CPU: r"""
        处理器|處理器|プロセッサ|中央处理|prozessorleistung
    """,
    Theme.MEMORY: r"""
        内存|記憶體|メモリ|显存
    """,
    Theme.COST: r"""
        成本|费用|費用|电费|電費|价格|價格|账单|コスト|料金|電気代|碳|炭素|二酸化炭素|[$€£¥]\s*/|/\s*kwh|(?<!\w)[€£¥]|排放|per\s+kwh
    """,
    Theme.EFFICIENCY: r"""
        per\s+(watt|joule|kwh|wh)\b|/\s*(watts?|joules?|[wj]|kwh|wh)(?![a-z])|pro\s+(watt|joule)|par\s+(watt|joule)
        |por\s+(vatio|julio|watt)|(watt|joule)s?\s+per\s+(million\s+)?(token|request|image)|perf\s*/\s*w
        |j(oules?)?\s*/\s*(token|tok|request)|能效|每瓦|每焦|ワットあたり|電力効率|効率|tokens?\s*/\s*s?\s*/\s*w
    """,
    Theme.ESTIMATE: r"""
        估计|估算|估計|预估|推定|見積|概算|约|≈|~\s*\d|(?<!\w)est\.
    """,
    Theme.WALL: r"""
        插座|墙上|コンセント|壁|at\s+the\s+(wall|plug|socket)|prise\s+murale|smart\s+plug|市电
    """,
    Theme.SPARK: r"""
        dgx[-_\s]*sparks?|(?<![a-z])gb10|grace\s+blackwell\s+10
    """,
    Theme.HEADROOM: r"""
        余量|餘量|剩余|余裕|残り
    """,
}


def _words(theme: Theme) -> str:
    return "|".join(_ALPHABETIC.get(theme, "").split())


def _anywhere(theme: Theme) -> str:
    return "".join(_ANYWHERE.get(theme, "").split("\n")).replace(" ", "")


def _pattern(theme: Theme) -> re.Pattern[str]:
    words, anywhere = _words(theme), _anywhere(theme)
    parts = [rf"(?<![^\W_])(?:{words})(?![^\W_])"] if words else []
    return re.compile("|".join([*parts, anywhere] if anywhere else parts), re.IGNORECASE)


_PATTERNS: Final = {theme: _pattern(theme) for theme in Theme}
# A text is taken apart into words, of which there are few; only what may stand within one is looked for in all of it.
_OF_WORDS: Final = {theme: re.compile(words, re.IGNORECASE) for theme in Theme if (words := _words(theme))}
_WITHIN: Final = {theme: re.compile(found, re.IGNORECASE) for theme in Theme if (found := _anywhere(theme))}
_ANY_WITHIN: Final = re.compile("|".join(_anywhere(theme) for theme in _WITHIN), re.IGNORECASE)
_WORD: Final = re.compile(r"[^\W_]+")

#: ``{{ $labels.instance }}``, ``{{instance}}``: what stands there is a label's value.
_TEMPLATE: Final = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_GPU_TEMPLATE: Final = re.compile(r"\{\{[^}]*(gpu|model_?name|uuid|card)[^}]*\}\}", re.IGNORECASE)
_CAMEL: Final = re.compile(r"(?<=[a-zß-ÿ]{2})(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})")
#: Longer texts are read no further: a description is prose, not a file.
_MAX_CHARACTERS: Final = 4000


@lru_cache(maxsize=65_536)
def themes(text: str) -> frozenset[Theme]:
    """Return what a text speaks of."""
    if not text:
        return frozenset()
    told = _plain(text)
    found = set().union(*map(_themes_of_word, _WORD.findall(told)))
    if _ANY_WITHIN.search(told):
        found |= {theme for theme, pattern in _WITHIN.items() if pattern.search(told)}
    if "{{" in text and _GPU_TEMPLATE.search(text):
        found.add(Theme.GPU)
    return frozenset(found)


@lru_cache(maxsize=65_536)
def _themes_of_word(word: str) -> frozenset[Theme]:
    return frozenset(theme for theme, pattern in _OF_WORDS.items() if pattern.fullmatch(word))


def _plain(text: str) -> str:
    """Return a text without templates, its names split into words."""
    told = _TEMPLATE.sub(" ", unicodedata.normalize("NFKC", text[:_MAX_CHARACTERS]))
    return _CAMEL.sub(" ", told).replace("_", " ").replace(":", " ")


def written(text: str) -> frozenset[Theme]:
    """Return what a text speaks of in its own words, without the labels that it shows."""
    return themes(_TEMPLATE.sub(" ", text))


def sentences(text: str) -> list[str]:
    """Return the sentences of prose, where a word counts only beside others."""
    return [part for part in re.split(r"[.!?。！？\n;]+(?=\s|$)|\n", text[:_MAX_CHARACTERS]) if part.strip()]


@dataclass(frozen=True, slots=True)
class Assertion:
    """The word by which a text says that its power is a machine's, or more."""

    word: str
    #: What kind of word: one for a machine, one that only says that something is added up, or what a meter counts.
    theme: Theme


def is_a_machine(text: str) -> bool:
    """Return whether a text is one word, for a machine: a row that is called "Chassis"."""
    words = _WORD.findall(_plain(text))
    return len(words) == 1 and Theme.WHOLE in _themes_of_word(words[0])


def asserts_whole(title: str, legend: str, description: str) -> Assertion | None:
    """Return the word by which a title, a legend or a description says that it is about a whole; None if none does."""
    for text in (title, legend):
        if found := _whole(text, themes(text)):
            return found
    for sentence in sentences(description):
        said = themes(sentence)
        if Theme.POWER not in said:
            continue
        # In prose, a total is often some counter's; it is this panel's where the sentence begins with it.
        begins = _PATTERNS[Theme.TOTAL].match(_plain(sentence).lstrip(" #-*"))
        if found := _whole(sentence, said if begins else said - {Theme.TOTAL}):
            return found
    return None


def _whole(text: str, said: frozenset[Theme]) -> Assertion | None:
    for theme in (Theme.WHOLE, Theme.WALL, Theme.METERED, Theme.TOTAL):
        # A bill names what it counts, and is judged as a bill.
        if theme in said and not (Theme.COST in said and theme is Theme.METERED):
            found = _PATTERNS[theme].search(_plain(text))
            return Assertion(found[0].strip(), theme) if found else None
    return None
