"""Words in six languages: which speak of the box, which of a part, and which of neither."""

import pytest

from spark_agent.agent.audit.words import Theme, asserts_whole, sentences, themes

WHOLE, TOTAL, POWER, GPU, CPU, PART = Theme.WHOLE, Theme.TOTAL, Theme.POWER, Theme.GPU, Theme.CPU, Theme.PART


@pytest.mark.parametrize(
    ("text", "theme"),
    [
        # English
        ("Node Power", WHOLE), ("power per host", WHOLE), ("DGX Sparks", WHOLE), ("HighChassisPower", WHOLE),
        ("cluster:power_watts:sum", WHOLE), ("node_power_watts", WHOLE), ("Overall draw", TOTAL),
        ("Total power", TOTAL), ("Power draw", POWER), ("GPU power", GPU), ("gpuPower", GPU), ("NVIDIA-SMI", GPU),
        ("H100 power", GPU), ("per accelerator", GPU), ("{{gpu}} W", GPU), ("{{modelName}}", GPU),
        ("Package power", PART), ("CPU power", CPU), ("Energy cost", Theme.COST), ("$/day", Theme.COST),
        ("Tokens per watt", Theme.EFFICIENCY), ("tok/J", Theme.EFFICIENCY), ("perf/W", Theme.EFFICIENCY),
        ("Power (estimate)", Theme.ESTIMATE), ("approx. power", Theme.ESTIMATE), ("at the wall", Theme.WALL),
        ("DGX Spark", Theme.SPARK), ("dgx-spark-1", Theme.SPARK), ("gb10", Theme.SPARK), ("kWh", Theme.METERED),
        ("Headroom", Theme.HEADROOM), ("DRAM", Theme.MEMORY),
        # German
        ("Leistung des Rechners", WHOLE), ("Systemleistung", WHOLE), ("Gesamtsystemleistung", WHOLE),
        ("Leistung der Knoten", WHOLE), ("Gesamtleistung", TOTAL), ("Summe", TOTAL), ("Leistungsaufnahme", POWER),
        ("Grafikkarte", GPU), ("Prozessoren", CPU), ("Stromkosten", Theme.COST), ("geschätzt", Theme.ESTIMATE),
        ("Steckdose", Theme.WALL), ("Tokens pro Watt", Theme.EFFICIENCY), ("Spielraum", Theme.HEADROOM),
        ("Serverleistung", WHOLE), ("Knotenleistung", WHOLE), ("Rechnerleistung", WHOLE), ("Prozessorleistung", CPU),
        ("GPU-Leistung", GPU), ("Grafikkartenleistung", GPU), ("Serverleistung", POWER),
        # French
        ("Consommation du serveur", WHOLE), ("nœuds", WHOLE), ("Puissance totale", TOTAL), ("Consommation", POWER),
        ("carte graphique", GPU), ("cartes graphiques", GPU), ("processeur", CPU), ("coût", Theme.COST),
        ("estimée", Theme.ESTIMATE), ("prise murale", Theme.WALL), ("rendement", Theme.EFFICIENCY),
        # Spanish
        ("Consumo del servidor", WHOLE), ("máquina", WHOLE), ("Potencia total", TOTAL), ("Potencia", POWER),
        ("tarjeta gráfica", GPU), ("procesador", CPU), ("coste", Theme.COST), ("estimado", Theme.ESTIMATE),
        ("enchufe", Theme.WALL), ("eficiencia", Theme.EFFICIENCY),
        # Chinese
        ("整机功耗", WHOLE), ("系统功耗", WHOLE), ("服务器", WHOLE), ("当前集群总功耗", TOTAL), ("功耗", POWER),
        ("显卡功耗", GPU), ("处理器", CPU), ("电费", Theme.COST), ("估算", Theme.ESTIMATE), ("插座", Theme.WALL),
        ("每瓦", Theme.EFFICIENCY), ("剩余功率", Theme.HEADROOM),
        # Japanese
        ("システム消費電力", WHOLE), ("サーバの電力", WHOLE), ("全体の電力", TOTAL), ("消費電力", POWER),
        ("グラフィックボード", GPU), ("プロセッサ", CPU), ("電気代", Theme.COST), ("推定", Theme.ESTIMATE),
        ("コンセント", Theme.WALL), ("ワットあたり", Theme.EFFICIENCY),
    ],
)  # fmt: skip
def test_words(text: str, theme: Theme) -> None:
    """Each speaks of its theme, in titles and in names."""
    assert theme in themes(text)


@pytest.mark.parametrize(
    ("text", "theme"),
    [
        ("Power", WHOLE), ("nodejs heap", GPU), ("boxplot", WHOLE), ("subtotal", TOTAL), ("{{instance}}", WHOLE),
        ("{{ $labels.node }}", WHOLE), ("powder", POWER), ("H1 2026", GPU), ("install", TOTAL), ("allocated", TOTAL),
        ("rack", GPU), ("access", Theme.WALL), ("sparkline", Theme.SPARK), ("Apache Spark", Theme.SPARK),
        ("total tokens", POWER), ("Kosmos", Theme.COST), ("best", Theme.ESTIMATE), ("wallet", Theme.WALL),
        ("Gigabyte pro Sekunde", Theme.EFFICIENCY), ("Leistung", WHOLE), ("功耗", WHOLE), ("電力", WHOLE),
    ],
)  # fmt: skip
def test_no_words(text: str, theme: Theme) -> None:
    """What only looks like one, and the value of a label, are none."""
    assert theme not in themes(text)


@pytest.mark.parametrize(
    ("title", "legend", "description", "word"),
    [
        ("Node power", "", "", "Node"),
        ("Power", "whole box", "", "whole"),
        ("Power", "", "The power of the entire machine.", "entire"),
        ("Power", "", "Total power, in watts.", "Total"),
        ("总功耗", "", "", "总"),
        ("HighChassisPower", "", "", "Chassis"),
    ],
)
def test_assertions(title: str, legend: str, description: str, word: str) -> None:
    """Title, legend and prose assert a whole by a word, and it is told as it is written."""
    said = asserts_whole(title, legend, description)

    assert said is not None
    assert word.casefold() in said.word.casefold()


@pytest.mark.parametrize(
    ("title", "legend", "description"),
    [
        ("Power", "", ""),
        ("Power", "{{node}}", ""),
        ("Power", "", "Read by the exporter of each node. Watts."),
        ("Power", "", "See the dashboard of the cluster for its temperature."),
        ("", "", ""),
    ],
)
def test_no_assertions(title: str, legend: str, description: str) -> None:
    """A word for the whole in a sentence that is not about power asserts nothing."""
    assert asserts_whole(title, legend, description) is None


def test_a_total_is_told_apart() -> None:
    """That something is added up does not say what."""
    total, node = asserts_whole("Total power", "", ""), asserts_whole("Node power", "", "")

    assert (Theme.TOTAL, Theme.WHOLE) == (total and total.theme, node and node.theme)


def test_sentences() -> None:
    """By the signs of all six languages, and by lines."""
    assert ["A b", "C d", "功耗", "E"] == [one.strip() for one in sentences("A b. C d!\n功耗。\nE")]


def test_long_texts_end() -> None:
    """A description as long as a book is read at its beginning only."""
    assert WHOLE in themes("node " + "x" * 10_000_000)
    assert WHOLE not in themes("x " * 10_000 + "node")
