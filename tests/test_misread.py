"""What other exporters claim of the machine, and what gives a claim away. All machines and pages here are synthetic."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from looks import OTHER, SPARK, at, watts

from spark_agent.agent import misread, pretenders
from spark_agent.agent.misread import Claim, Giveaway, Hearsay, Listener, Page
from spark_agent.agent.power import Measured, understand
from spark_agent.agent.pretenders import claims
from spark_agent.collectors import Fact, Quality, Scope

#: As all-smi writes it (src/api/metrics/chassis.rs), and what its issue 148 shows of a Spark.
ALL_SMI = (
    "# HELP all_smi_gpu_power_consumption_watts GPU power consumption in watts",
    "# TYPE all_smi_gpu_power_consumption_watts gauge",
    'all_smi_gpu_power_consumption_watts{gpu="NVIDIA GB10",gpu_index="0"} 4.05',
    "# HELP all_smi_chassis_power_watts Total chassis power consumption in watts (CPU+GPU+ANE)",  # codespell:ignore
    "# TYPE all_smi_chassis_power_watts gauge",
    'all_smi_chassis_power_watts{hostname="spark-1",instance="spark-1"} 4.05',
)
CHASSIS = "all_smi_chassis_power_watts"


def _page(metric: str, help_: str = "", labels: str = "", value: object = 30, type_: str = "gauge") -> list[str]:
    told = [f"# HELP {metric} {help_}"] if help_ else []
    return [*told, f"# TYPE {metric} {type_}", f"{metric}{{{labels}}} {value}"]


# --- what claims to be the machine ------------------------------------------------------------------------------------


def test_all_smi_claims_to_be_the_chassis() -> None:
    """Its GPU's own metric claims nothing; a host's name is not told."""
    assert [(CHASSIS, 4.05)] == [(claim.series, claim.watts) for claim in claims(ALL_SMI)]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (_page("esnode_node_power_watts"), 30),
        (_page("ipmi_dcmi_power_consumption_watts"), 30),
        (_page("scaph_host_power_microwatts", value=30e6), 30),
        (_page("kepler_node_cpu_watts", labels='zone="psys"'), 30),
        (_page("node_hwmon_power_watt", labels='chip="spbm",label="sys_total"'), 30),
        (_page("box_power_kilowatts", value=0.03), 30),
        (_page("server_power", "Power of the server in milliwatts", value=30000), 30),
        (_page("power_watts", "Power draw of the whole machine"), 30),
        (_page("total_power_watts", type_="untyped"), 30),
        (_page("nvidia_dgx_system_power_watts"), 30),
        (["system_power_watts 30"], 30),
    ],
)
def test_what_claims_to_be_the_machine(lines: list[str], expected: float) -> None:
    """By the catalogue, by the name, or by HELP; in watts, whatever the unit."""
    assert [expected] == [claim.watts for claim in claims(lines)]


@pytest.mark.parametrize(
    "lines",
    [
        _page("DCGM_FI_DEV_POWER_USAGE", "Power draw (in W)."),
        _page("nvidia_smi_power_draw_watts", "Power draw as the system management interface has it"),
        _page("system_gpu_power_draw_watts"),
        _page("all_smi_chassis_gpu_power_watts"),
        _page("kepler_node_cpu_watts", labels='zone="package"'),
        _page("kepler_container_platform_joules_total", type_="counter"),
        _page("node_hwmon_power_watt", labels='chip="spbm",label="gpu"'),
        _page("node_hwmon_power_watt", labels='chip="spbm",sensor="power1"'),
        _page("host_nvme_power_watts"),
        _page("shelly_plug_power_watts", "Power of the plug of the host"),
        _page("aitra_cluster_power_watts_total"),
        _page("dgx_spark_system_power_watts", labels='source="x"'),
        _page("system_power_watts", "System power, estimated from load"),
        _page("system_power_watts", labels='source="estimate"'),
        _page("system_power_watts", labels='device="gpu0"'),
        _page("system_power_limit_watts"),
        _page("node_power_supply_online"),
        _page("system_power", "Power of the system"),
        _page("system_power_watts", value="NaN"),
        _page("system_power_watts", value="+Inf"),
        _page("system_power_watts", value=-1),
        _page("system_power_watts", type_="counter"),
        _page("gb10_system_power_watts"),
        _page("power_watts"),
        _page("power_watts", "Total power of the accelerator"),
        _page("up"),
    ],
)
def test_what_does_not(lines: list[str]) -> None:
    """A part that says so, an estimate, a limit, this agent's own, a unit that nobody gives, and what is no number."""
    assert () == claims(lines)


def test_openmetrics_is_read_too() -> None:
    """With its end, its units and its exemplars."""
    lines = ["# TYPE system_power_watts gauge", "# UNIT system_power_watts watts", "system_power_watts 30", "# EOF"]
    assert [30] == [claim.watts for claim in claims(lines, is_openmetrics=True)]


@pytest.mark.parametrize("text", ["", "<!DOCTYPE html>\n<p>hello", "hello world", '{"status": "ok"}', "\0\0\0"])
def test_a_page_without_metrics_is_none(text: str) -> None:
    """Whatever it is instead."""
    with pytest.raises(ValueError, match="no metrics"):
        claims(text.splitlines())


def test_a_line_that_is_none_costs_the_page() -> None:
    """Half a page is no page."""
    with pytest.raises(ValueError, match=r"."):
        claims([*ALL_SMI, "system_power_watts{ 3"])


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=60), max_size=8), st.booleans())
@example(['system_power_watts{a="'], False)
@example(["# TYPE system_power_watts gauge", "system_power_watts"], True)
@example(["# HELP system_power_watts"], True)
def test_any_page_is_claims_or_no_page(lines: list[str], is_openmetrics: bool) -> None:
    """Those errors that the fetch tells, and no other."""
    prefixed = [*lines, *(f"system_power_watts{line}" for line in lines)]
    try:
        found = claims(["up 1", *prefixed], is_openmetrics=is_openmetrics)
    except (ValueError, LookupError):
        return
    assert all(math.isfinite(claim.watts) and claim.watts >= 0 for claim in found)


def test_a_page_is_bounded() -> None:
    """In lines on power, in claims, and in letters of a series."""
    many = [f'system_power_watts{{n="{number}"}} 30' for number in range(pretenders.MOST_CLAIMS + 1)]
    assert pretenders.MOST_CLAIMS == len(claims(many))
    with pytest.raises(ValueError, match="more than 4096 lines"):
        claims(many * 100)
    (long,) = claims([f'system_power_watts{{n="{"x" * 1000}"}} 30'])
    assert 161 == len(long.series)


def test_no_identity_of_a_machine_is_told() -> None:
    """Labels with serial numbers, addresses and hosts stay where they are; what is told apart stays apart."""
    labels = 'hostname="h{0}",gpu_uuid="u{0}",serial="s{0}",mac="m{0}",instance="i{0}",tray="2"'
    found = claims([f"system_power_watts{{{labels.format(number)}}} 30" for number in (1, 2)])
    assert ['system_power_watts{tray="2"}'] * 2 == [claim.series for claim in found]
    assert 2 == len({claim.key for claim in found})


# --- what gives it away -----------------------------------------------------------------------------------------------

#: Seconds between two pages.
PACE = 15
Powers = Callable[[int], dict[str, float]]


def listened(
    seconds: int, powers: Powers, claimed: Callable[[int], float | None], platform: Fact = SPARK
) -> list[Hearsay]:
    """Return what is heard each second; each 15 a new page, at fault where nothing is ``claimed``."""
    pages: list[Page] = []
    listener = Listener(lambda: pages)
    heard = []
    look = at(0.0, platform)
    power = understand(look)
    for second in range(seconds):
        if second % PACE == 0:
            now = claimed(second)
            series = f"{CHASSIS}{{}}"
            told = () if now is None else (Claim(CHASSIS, now, series),)
            pages[:] = [Page("http://x/metrics", told, "" if told else "no answer")]
        snapshot = replace(look, at=float(second))
        heard.append(listener.hear(snapshot, replace(power, scopes={**power.scopes, **measured(powers(second))})))
    return heard


def measured(powers: dict[str, float]) -> dict[Scope, Measured]:
    """Return powers by scope, read just now."""
    return {
        Scope(name): Measured(watts, "W", Scope(name), Quality.MEASURED, "a test", 0.0)
        for name, watts in powers.items()
    }


def kinds(heard: Iterable[Hearsay]) -> set[Giveaway]:
    """Return the tests that were ever failed."""
    return {found.kind for one in heard for found in one.misreads}


def job(second: int) -> float:
    """Return the power of a GPU that works for two minutes of four, in watts."""
    return 4.1 if second % 240 < 120 else 62.0


def stock(gpu: Callable[[int], float]) -> Powers:
    """Return the powers of a Spark without a driver for its power page: NVML's alone."""
    return lambda second: {"gpu_nvml": gpu(second)}


def test_an_idle_spark_s_chassis_is_below_the_floor() -> None:
    """With one look, and told with its number, its age and its source."""
    (heard, later) = (listened(8, stock(lambda _: 4.1), lambda _: 4.05)[i] for i in (0, 7))
    (found,) = heard.misreads
    assert (CHASSIS, Giveaway.FLOOR, "http://x/metrics") == (found.series, found.kind, found.url)
    assert "a Spark draws no less than 15 W, idle 22 to 25 W; NVML gives 4.1 W for the GPU" == found.evidence
    assert (4.05, "W", "system", "untrusted", 0.0) == (
        found.claimed.value,
        found.claimed.unit,
        found.claimed.scope,
        found.claimed.quality,
        found.claimed.age,
    )
    assert "all_smi_chassis_power_watts of http://x/metrics" == found.claimed.source
    assert 7.0 == later.misreads[0].claimed.age


def test_what_follows_the_gpu_is_the_gpu() -> None:
    """Once it has been at both levels; then it is also less than what no Spark draws, when idle."""
    heard = listened(600, stock(job), lambda second: round(job(second), 2))
    assert Giveaway.IDENTITY not in kinds(heard[:150])
    (found,) = (one for one in heard[-1].misreads if one.kind is Giveaway.IDENTITY)
    assert found.evidence.startswith("it was NVML's GPU power ")
    assert found.evidence.endswith(" times in a row, from 4.1 to 62.0 W")


@pytest.mark.parametrize("lag", [1, 3, 15, 30])
def test_an_exporter_may_be_late(lag: int) -> None:
    """By the half minute that dcgm-exporter is at the most."""
    assert Giveaway.IDENTITY in kinds(listened(900, stock(job), lambda second: job(second - lag)))


def test_noise_hides_nothing() -> None:
    """Averages over another window differ by a little, and rounding does."""

    def noisy(second: int) -> float:
        return job(second) * (1 + 0.01 * math.sin(second))

    assert Giveaway.IDENTITY in kinds(listened(900, stock(noisy), lambda second: round(noisy(second - 2))))


def test_an_exporter_that_restarts_is_followed_on() -> None:
    """A page that fails now and then says nothing against it."""
    heard = listened(900, stock(job), lambda second: None if second % 60 == 0 else job(second))
    assert Giveaway.IDENTITY in kinds(heard)
    assert "no answer" == heard[0].exporters["http://x/metrics"]


@pytest.mark.parametrize("constant", [15.0, 20.0, 33.0, 62.0, 100.0])
def test_a_constant_is_not_the_gpu(constant: float) -> None:
    """Even where it is what the GPU draws for a while."""
    assert Giveaway.IDENTITY not in kinds(listened(1200, stock(job), lambda _: constant))


def test_an_idle_machine_cannot_tell() -> None:
    """A GPU that never moved is like anything that never moved."""
    assert set() == kinds(listened(1200, stock(lambda _: 16.0), lambda _: 16.0))


def test_a_gpu_that_never_rests_cannot_tell() -> None:
    """No window has one level then, and a late page could be anything in it."""

    def restless(second: int) -> float:
        return 40.0 + 25.0 * math.sin(second)

    assert set() == kinds(listened(1200, stock(restless), restless))


def test_a_page_that_always_meets_the_gpu_at_rest_cannot_tell() -> None:
    """An honest system, looked at in step with a job that draws breath, is always within what the GPU did."""

    def breathing(second: int) -> float:
        return (5.0 if second % 480 < 240 else 60.0) + (0.0 if second % PACE == 0 else 40.0)

    assert set() == kinds(listened(1800, stock(breathing), lambda second: breathing(second) + 20.0))


def test_one_level_alone_does_not_decide() -> None:
    """It may be chance."""

    def once(second: int) -> float:
        return 62.0 if 600 <= second <= 645 else 16.0

    heard = listened(1200, stock(once), once)
    assert set() == kinds(heard)


def test_one_page_that_is_not_the_gpu_begins_it_anew() -> None:
    """It is no reading of the GPU that reads another thing in between, however seldom."""
    wrong = 480 + 4 * PACE

    def claimed(second: int) -> float:
        return 40.0 if second == wrong else job(second)

    heard = listened(wrong + 1, stock(job), claimed)
    assert Giveaway.IDENTITY in {found.kind for found in heard[wrong - 1].misreads}
    assert Giveaway.IDENTITY not in {found.kind for found in heard[wrong].misreads}


def test_a_system_below_its_soc_is_impossible() -> None:
    """Held against the least that the SoC read in half a minute, so that no moment decides."""
    heard = listened(60, lambda _: {"soc": 90.0, "gpu_rail": 60.0, "gpu_nvml": 45.0}, lambda _: 50.0)
    (found,) = heard[-1].misreads
    assert (Giveaway.CONTRADICTION, "the SoC, a part of it, read 90.0 W or more for 35 s") == (
        found.kind,
        found.evidence,
    )
    assert () == heard[30].misreads, "half a minute is not over"


@pytest.mark.parametrize(("scope", "name"), [("gpu_rail", "the GPU's rail"), ("gpu_nvml", "the GPU (NVML)")])
def test_so_is_one_below_its_gpu(scope: str, name: str) -> None:
    """Where nothing measures the SoC."""
    (found,) = listened(60, lambda _: {scope: 60.0}, lambda _: 50.0)[-1].misreads
    assert f"{name}, a part of it, read 60.0 W or more for 35 s" == found.evidence
    assert () == listened(60, lambda _: {scope: 55.0}, lambda _: 50.0)[-1].misreads, "no two channels are exact"


def test_a_system_that_is_late_is_no_contradiction() -> None:
    """The SoC may have gone up since it was read."""

    def soc(second: int) -> float:
        return 17.0 if second % 60 < 30 else 120.0

    heard = listened(600, lambda second: {"soc": soc(second), "gpu_nvml": 5.0}, lambda second: soc(second - 30) + 8.0)
    assert set() == kinds(heard)


def test_an_honest_system_is_never_found() -> None:
    """A BMC's reading moves with the GPU too, and is what the machine draws."""
    heard = listened(
        1200,
        lambda second: {"gpu_nvml": job(second), "gpu_rail": job(second) * 1.3, "soc": job(second) * 1.3 + 12},
        lambda second: job(second - 5) * 1.3 + 20,
    )
    assert set() == kinds(heard)
    assert {"http://x/metrics": ""} == heard[-1].exporters


@given(st.data())
def test_a_rest_of_10_w_is_never_the_gpu(data: st.DataObject) -> None:
    """Nor is one that varies: whatever the GPU does, however late the page, over an hour of pages."""
    levels = data.draw(st.lists(st.floats(3, 110), min_size=1, max_size=6))
    rests = data.draw(st.lists(st.floats(10, 120), min_size=1, max_size=7))
    hold, lag = data.draw(st.integers(1, 300)), data.draw(st.integers(0, 30))
    slope = data.draw(st.sampled_from((0.0, 0.01, 0.05)))

    def gpu(second: int) -> float:
        return levels[second // hold % len(levels)] + slope * (second % hold)

    def system(second: int) -> float:
        return gpu(max(0, second - lag)) + rests[second // 40 % len(rests)]

    assert Giveaway.IDENTITY not in kinds(listened(900, stock(gpu), system))


@given(st.floats(0, 10), st.floats(5, 10), st.integers(2, 6))
def test_a_small_rest_that_varies_is_not_the_gpu(least: float, swing: float, every: int) -> None:
    """No Spark has so small a rest, and it may even be none most of the time."""
    heard = listened(900, stock(job), lambda second: job(second) + least + swing * (second // PACE % every == 0))
    assert Giveaway.IDENTITY not in kinds(heard)


def test_only_of_a_spark_is_it_known() -> None:
    """Another machine may draw 4 W."""
    heard = listened(600, stock(job), job, OTHER)
    assert set() == kinds(heard)
    assert {"http://x/metrics": ""} == heard[-1].exporters


def test_an_exporter_that_falls_silent_is_told_no_more() -> None:
    """What it said once says nothing of now; that it does not answer is told."""
    pages = [Page("http://x/metrics", (Claim(CHASSIS, 4.0, CHASSIS),))]
    listener = Listener(lambda: pages)

    def heard(second: float) -> Hearsay:
        snapshot = at(second, SPARK, *watts(gpu_nvml=4.0))
        return listener.hear(snapshot, understand(snapshot))

    assert 1 == len(heard(0).misreads)
    assert 1 == len(heard(90).misreads)
    assert Hearsay({"http://x/metrics": "no answer for 91 s"}) == heard(91)


def test_few_series_are_told() -> None:
    """Each is a label; those that are told stay the same from look to look."""
    names = [f"{CHASSIS}{{n={number:02}}}" for number in range(40)]
    pages = [Page("http://x/metrics", tuple(Claim(name, 4.0, name) for name in reversed(names)))]
    snapshot = at(0, SPARK, *watts(gpu_nvml=4.0))
    heard = Listener(lambda: pages).hear(snapshot, understand(snapshot))
    assert names[: misread.MOST_SERIES] == [found.series for found in heard.misreads]


def test_a_gap_in_the_looks_is_no_window() -> None:
    """What the GPU did meanwhile nobody knows."""

    def powers(second: int) -> dict[str, float]:
        return {} if second % PACE in (7, 8, 9, 10, 11, 12) else {"gpu_nvml": 62.0, "soc": 90.0}

    assert set() == kinds(listened(600, powers, lambda _: 30.0))
