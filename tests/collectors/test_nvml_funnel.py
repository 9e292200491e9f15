"""The funnel keeps a sick driver from taking the agent with it. No driver is needed to show it."""

import threading
import time
from collections.abc import Iterator
from traceback import walk_tb
from typing import Any

import pytest

from spark_agent.collectors import Nvml, NvmlError, Reason
from spark_agent.collectors._nvml import LOST, NoLibrary, _Batch


class _Library:
    """Answers each function with a value, an error to raise, or what a callable gives; notes each call."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.calls: list[str] = []

    def call(self, function: str, device: int | None, *arguments: Any) -> Any:  # noqa: ARG002  (the protocol's)
        self.calls.append(function)
        answer = self.answers.get(function)
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer


class _Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _failure(nvml: Nvml, function: str) -> NvmlError:
    """Return how a call fails."""
    with pytest.raises(NvmlError) as caught:
        nvml.call(function, 0)
    return caught.value


def _settle(nvml: Nvml) -> None:
    """Wait until everything that was asked has been answered."""
    last = _Batch([("last", None)])
    assert nvml._worker
    nvml._worker._batches.put(last)
    last.over.get(timeout=30)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Return what lets a hanging call go on; it always does in the end."""
    event = threading.Event()
    yield event
    event.set()


def _hang(nvml: Nvml, function: str) -> NvmlError:
    """Return how a call that hangs fails; nobody waits for it."""
    deadline, nvml._call_deadline = nvml._call_deadline, 0.0
    error = _failure(nvml, function)
    nvml._call_deadline = deadline
    return error


def test_nothing_happens_before_the_first_call() -> None:
    """A funnel that is never asked never initialises, and starts no thread."""
    library = _Library()
    threads = threading.active_count()
    nvml = Nvml(library)
    assert [] == library.calls
    assert threads == threading.active_count()
    nvml.call("nvmlDeviceGetName", 0)
    assert ["nvmlInit", "nvmlDeviceGetName"] == library.calls


def test_the_back_off_doubles_up_to_16_seconds() -> None:
    """A machine without a driver is asked ever more rarely, but is asked for ever."""
    clock, library = _Clock(), _Library(nvmlInit=NvmlError("DRIVER_NOT_LOADED"))
    nvml = Nvml(library, clock)
    tries = []
    for now in range(200):
        clock.now = now
        before = len(library.calls)
        assert Reason.DRIVER_NOT_LOADED is _failure(nvml, "nvmlDeviceGetName").reason
        if len(library.calls) > before:
            tries.append(now)
    assert [0, 1, 3, 7, 15, *range(31, 200, 16)] == tries


def test_a_long_session_makes_the_back_off_short_again() -> None:
    """A driver that worked for an hour and goes away may be back in a second."""
    clock, library = _Clock(), _Library(nvmlInit=NvmlError("DRIVER_NOT_LOADED"))
    nvml = Nvml(library, clock)
    for clock.now in (0.0, 1.0, 3.0, 7.0):
        _failure(nvml, "nvmlDeviceGetName")
    library.answers = {"nvmlDeviceGetName": "NVIDIA GB10"}
    clock.now = 15.0
    assert "NVIDIA GB10" == nvml.call("nvmlDeviceGetName", 0)
    clock.now = 3615.0
    library.answers = {"nvmlDeviceGetName": NvmlError("GPU_IS_LOST")}
    _failure(nvml, "nvmlDeviceGetName")
    library.answers = {"nvmlDeviceGetName": "NVIDIA GB10"}
    clock.now = 3616.0
    assert "NVIDIA GB10" == nvml.call("nvmlDeviceGetName", 0)


def test_an_init_that_helps_nothing_does_not_shorten_the_back_off() -> None:
    """On a GPU that is lost nvmlInit may succeed and every call fail: asking each second would make it worse."""
    clock, library = _Clock(), _Library(nvmlDeviceGetName=NvmlError("GPU_IS_LOST"))
    nvml = Nvml(library, clock)
    for now in range(200):
        clock.now = now
        assert Reason.DEVICE_LOST is _failure(nvml, "nvmlDeviceGetName").reason
    assert 16 == library.calls.count("nvmlInit") == library.calls.count("nvmlShutdown")


@pytest.mark.parametrize("code", sorted(LOST))
def test_what_ends_a_session(code: str) -> None:
    """After these every call fails with the same reason until the back-off is over; then a new session begins."""
    clock, library = _Clock(), _Library(nvmlDeviceGetPowerUsage=NvmlError(code))
    nvml = Nvml(library, clock)
    lost = _failure(nvml, "nvmlDeviceGetPowerUsage")
    made = len(library.calls)
    for _ in range(3):
        assert lost.reason is _failure(nvml, "nvmlDeviceGetName").reason
    assert made == len(library.calls)
    clock.now = 1.0
    nvml.call("nvmlDeviceGetName", 0)
    assert ["nvmlInit", "nvmlDeviceGetName"] == library.calls[made:]


@pytest.mark.parametrize("code", ["NO_PERMISSION", "NO_DATA", "UNKNOWN", "IN_USE", "SOMETHING_NEW"])
def test_what_does_not_end_a_session(code: str) -> None:
    """An error of one call is that call's, and it is asked again."""
    library = _Library(nvmlDeviceGetPowerUsage=NvmlError(code))
    nvml = Nvml(library)
    for _ in range(2):
        assert code == _failure(nvml, "nvmlDeviceGetPowerUsage").code
    nvml.call("nvmlDeviceGetName", 0)
    assert ["nvmlInit", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetName"] == library.calls


@pytest.mark.parametrize("code", ["NOT_SUPPORTED", "FUNCTION_NOT_FOUND", "ARGUMENT_VERSION_MISMATCH", "DEPRECATED"])
def test_what_is_refused_is_remembered_for_the_session(code: str) -> None:
    """Asked once of each device; a driver that comes back may be another version, so it is asked again."""
    clock, library = _Clock(), _Library(nvmlDeviceGetMemoryInfo=NvmlError(code))
    nvml = Nvml(library, clock)
    for _ in range(3):
        assert Reason.NOT_SUPPORTED is _failure(nvml, "nvmlDeviceGetMemoryInfo").reason
    assert 1 == library.calls.count("nvmlDeviceGetMemoryInfo")
    with pytest.raises(NvmlError):
        nvml.call("nvmlDeviceGetMemoryInfo", 1)
    assert 2 == library.calls.count("nvmlDeviceGetMemoryInfo")
    library.answers = {"nvmlDeviceGetName": NvmlError("GPU_IS_LOST"), "nvmlDeviceGetMemoryInfo": {"total": 1}}
    _failure(nvml, "nvmlDeviceGetName")
    clock.now = 1.0
    assert {"total": 1} == nvml.call("nvmlDeviceGetMemoryInfo", 0)


def test_while_a_call_hangs_every_other_is_refused(release: threading.Event) -> None:
    """They fail at once with the hanging call's name, and none is kept for later."""
    clock, library = _Clock(), _Library(nvmlDeviceGetPowerUsage=release.wait)
    nvml = Nvml(library, clock)
    nvml.call("nvmlDeviceGetName", 0)
    error = _hang(nvml, "nvmlDeviceGetPowerUsage")
    assert (Reason.TIMEOUT, "the NVIDIA driver does not answer (nvmlDeviceGetPowerUsage: TIMEOUT)") == (
        error.reason,
        error.detail,
    )
    for clock.now in (0.0, 1.0, 100.0, 200.0):
        assert error.detail == _failure(nvml, "nvmlDeviceGetName").detail
    release.set()
    _settle(nvml)
    assert ["nvmlInit", "nvmlDeviceGetName", "nvmlDeviceGetPowerUsage", "last"] == library.calls


def test_when_the_hanging_call_returns_the_driver_is_used_again(release: threading.Event) -> None:
    """What it returned belongs to nobody any more, least of all to the next call."""
    clock, library = _Clock(), _Library(nvmlDeviceGetPowerUsage=release.wait, nvmlDeviceGetName="NVIDIA GB10")
    nvml = Nvml(library, clock)
    nvml.call("nvmlDeviceGetName", 0)
    _hang(nvml, "nvmlDeviceGetPowerUsage")
    release.set()
    _settle(nvml)
    assert Reason.TIMEOUT is _failure(nvml, "nvmlDeviceGetName").reason
    clock.now = 1.0
    assert "NVIDIA GB10" == nvml.call("nvmlDeviceGetName", 0)


def test_an_init_that_hangs_is_left_behind(release: threading.Event) -> None:
    """The wrong kernel module makes nvmlInit hang for ever; its deadline is longer, and it is one, too."""
    clock, library = _Clock(), _Library(nvmlInit=release.wait, nvmlDeviceGetName="NVIDIA GB10")
    nvml = Nvml(library, clock, init_deadline=0.0)
    for clock.now in (0.0, 0.5, 1.0, 10.0):
        assert "the NVIDIA driver does not answer (nvmlInit: TIMEOUT)" == _failure(nvml, "nvmlDeviceGetName").detail
    release.set()
    _settle(nvml)
    clock.now, nvml._init_deadline = 100.0, 30.0
    assert "NVIDIA GB10" == nvml.call("nvmlDeviceGetName", 0)


@pytest.mark.parametrize("error", [ValueError("bad"), OSError("bad"), KeyError("bad"), RecursionError("bad")])
def test_an_exception_of_any_other_kind_is_garbage(error: Exception) -> None:
    """A binding that trips over what the driver says costs one reading, not the agent."""
    library = _Library(nvmlDeviceGetName=error)
    nvml = Nvml(library)
    failure = _failure(nvml, "nvmlDeviceGetName")
    assert Reason.GARBAGE is failure.reason
    assert "bad" in failure.detail
    assert "nvmlDeviceGetName" in failure.detail
    assert nvml.call("nvmlDeviceGetPowerUsage", 0) is None


@pytest.mark.parametrize("answer", [None, "1", 1.0, [], {}])
def test_a_count_that_is_no_number_is_garbage(answer: Any) -> None:
    """Whoever asks for the number of devices gets a number, or a reason."""
    with pytest.raises(NvmlError) as caught:
        Nvml(_Library(nvmlDeviceGetCount=answer)).count()
    assert Reason.GARBAGE is caught.value.reason


def test_no_library_is_an_absence_and_no_fault() -> None:
    """Most machines in the world have no NVML; that is nothing to be alarmed about."""
    error = _failure(Nvml(NoLibrary()), "nvmlDeviceGetCount")
    assert Reason.NO_LIBRARY is error.reason
    assert not error.reason.is_fault


def test_a_driver_that_is_away_costs_no_memory() -> None:
    """An error that is raised again and again would keep every frame that it went through."""
    nvml = Nvml(NoLibrary(), lambda: 0.0)
    # The first one comes all the way from the library.
    _, *depths = [len(list(walk_tb(_failure(nvml, "nvmlDeviceGetName").__traceback__))) for _ in range(4)]
    assert 1 == len(set(depths))


def test_threads_share_one_session_and_get_their_own_answers(release: threading.Event) -> None:
    """A look that was given up may still be asking while the next one begins."""
    names = [f"nvml{number}" for number in range(4)]
    library = _Library(nvmlInit=release.wait, **{name: name for name in names})
    nvml = Nvml(library)
    wrong: list[tuple[str, str]] = []

    def ask(function: str) -> None:
        wrong.extend((function, answer) for _ in range(200) if (answer := nvml.call(function, 0)) != function)

    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    # All of them have come while the first one still initialises.
    release.set()
    for thread in threads:
        thread.join(30)
    assert [] == wrong
    assert 801 == len(library.calls)


def test_a_call_whose_caller_left_does_not_answer_the_next(release: threading.Event) -> None:
    """Control-C comes in the middle of a call; what the agent still asks after it must not get that call's answer."""
    nvml = Nvml(_Library(nvmlDeviceGetPowerUsage=release.wait, nvmlDeviceGetName="NVIDIA GB10"))
    nvml.call("nvmlDeviceGetName", 0)
    # The call is made, and its caller falls over before it can wait.
    nvml._call_deadline = None  # type: ignore[assignment]
    with pytest.raises(TypeError):
        nvml.call("nvmlDeviceGetPowerUsage", 0)
    nvml._call_deadline = 30.0
    release.set()
    assert "NVIDIA GB10" == nvml.call("nvmlDeviceGetName", 0)


def test_questions_go_together() -> None:
    """They are asked once, in order; an error is the answer of its own question, and what was left out is asked."""
    library = _Library(a="1", b=NvmlError("UNKNOWN", "b"), c="3", d="4")
    ask = Nvml(library).ask(0, ("a",), ("b",), ("c", "SM"))
    asked = ["nvmlInit", "a", "b", "c"]
    assert asked == library.calls
    for _ in range(2):
        assert ("1", "3") == (ask("a"), ask("c", "SM"))
        with pytest.raises(NvmlError, match="b: UNKNOWN"):
            ask("b")
    assert asked == library.calls
    assert "4" == ask("d")
    assert [*asked, "d"] == library.calls


def test_what_is_not_supported_is_left_out_of_the_next() -> None:
    """Together or alone, it is remembered."""
    library = _Library(a="1", b=NvmlError("NOT_SUPPORTED", "b"))
    nvml = Nvml(library)
    for _ in range(3):
        ask = nvml.ask(0, ("b",), ("a",))
        assert "1" == ask("a")
        with pytest.raises(NvmlError, match="b: NOT_SUPPORTED"):
            ask("b")
    assert Reason.NOT_SUPPORTED is _failure(nvml, "b").reason
    assert ["nvmlInit", "b", "a", "a", "a"] == library.calls


def test_a_question_that_hangs_costs_those_after_it(release: threading.Event) -> None:
    """What was said before stands; the rest fail as any call does until the one that hangs comes back."""
    library = _Library(a="1", b=release.wait, c="3")
    nvml = Nvml(library, call_deadline=0.2)
    ask = nvml.ask(0, ("a",), ("b",), ("c",))
    assert "1" == ask("a")
    for function in ("b", "c"):
        with pytest.raises(NvmlError, match=r"b: TIMEOUT"):
            ask(function)
    assert ["nvmlInit", "a", "b"] == library.calls


def test_questions_after_a_loss_are_not_asked() -> None:
    """A GPU that is lost answers nothing more in this session."""
    library = _Library(a="1", b=NvmlError("GPU_IS_LOST", "b"), c="3")
    ask = Nvml(library).ask(0, ("a",), ("b",), ("c",))
    assert "1" == ask("a")
    for function in ("b", "c"):
        with pytest.raises(NvmlError) as caught:
            ask(function)
        assert Reason.DEVICE_LOST is caught.value.reason
    assert ["nvmlInit", "a", "b", "nvmlShutdown"] == library.calls


def test_each_question_has_its_own_deadline() -> None:
    """A driver that is slow each time, but answers, is no driver that hangs."""

    def late() -> str:
        time.sleep(0.2)
        return "late"

    library = _Library(**dict.fromkeys("abcdef", late))
    ask = Nvml(library, call_deadline=0.8).ask(0, *((name,) for name in "abcdef"))
    assert ["late"] * 6 == [ask(name) for name in "abcdef"]


def test_questions_of_a_driver_that_is_not_there() -> None:
    """Each fails with the reason, as a single call does."""
    ask = Nvml(NoLibrary()).ask(0, ("a",))
    for function in ("a", "b"):
        with pytest.raises(NvmlError) as caught:
            ask(function)
        assert Reason.NO_LIBRARY is caught.value.reason
