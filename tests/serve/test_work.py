"""The worker: joined or alone the same answers, a bounded queue, nothing run for who left, an orderly end."""

import threading
import time
from concurrent.futures import CancelledError

import pytest

from s2s.errors import RunError, UsageError
from s2s.serve.work import OverloadedError, StoppingError, Worker

PATIENCE = 10


class Gate:
    """Work that holds the worker until `open` is set."""

    def __init__(self):
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self, items):
        self.begun.set()
        assert self.open.wait(PATIENCE)
        return items


class Upper:
    """Upper-cases texts and remembers its batches; refuses `bad`."""

    def __init__(self):
        self.batches = []

    def __call__(self, items):
        self.batches.append(list(items))
        if "bad" in items:
            raise UsageError("bad")
        return [item.upper() for item in items]


@pytest.fixture
def worker():
    made = Worker(waiting=8, together=4)
    yield made
    made.close()


@pytest.fixture
def held(worker):
    """A worker that is busy until the gate opens."""
    gate = Gate()
    worker.submit(gate, [0])
    assert gate.begun.wait(PATIENCE)
    yield gate
    gate.open.set()


def test_a_job_runs_at_once_and_gives_its_results(worker):
    upper = Upper()
    assert worker.submit(upper, ["a", "b"], "key").result(PATIENCE) == ["A", "B"]
    assert upper.batches == [["a", "b"]]


def test_who_waits_is_taken_along_up_to_the_limit_in_order(worker, held):
    upper = Upper()
    asked = [["a"], ["b", "c"], ["d", "e"], ["f"], ["g"]]
    futures = [worker.submit(upper, items, "key") for items in asked]
    held.open.set()
    assert [future.result(PATIENCE) for future in futures] == [[i.upper() for i in items] for items in asked]
    assert upper.batches == [["a", "b", "c", "f"], ["d", "e", "g"]]


def test_a_large_job_runs_in_turns_with_others(worker, held):
    upper = Upper()
    large, other, joins = (
        worker.submit(upper, list(text), key) for text, key in (("abcdefghij", 1), ("xy", 2), ("zz", 1))
    )
    held.open.set()
    assert large.result(PATIENCE) == list("ABCDEFGHIJ")
    assert other.result(PATIENCE) == list("XY")
    assert joins.result(PATIENCE) == list("ZZ")
    assert upper.batches == [list(text) for text in ("abcd", "xy", "zz", "efgh", "ij")]


def test_a_large_job_that_runs_alone_runs_whole(worker):
    upper = Upper()
    assert worker.submit(upper, list("abcdefghij")).result(PATIENCE) == list("ABCDEFGHIJ")
    assert upper.batches == [list("abcdefghij")]


def test_a_large_job_stops_when_it_is_left(worker):
    gate, batches = Gate(), []

    def run(items):
        batches.append(items)
        return gate(items)

    large = worker.submit(run, list("abcdefghij"), 1)
    assert gate.begun.wait(PATIENCE)
    assert large.cancel()
    gate.open.set()
    assert worker.submit(Upper(), ["x"]).result(PATIENCE) == ["X"]
    assert batches == [list("abcd")]


def test_only_equal_keys_are_joined_and_none_joins_nobody(worker, held):
    upper = Upper()
    futures = [worker.submit(upper, [text], key) for text, key in zip("abcdef", [1, 2, 1, None, None, 2], strict=True)]
    held.open.set()
    assert [future.result(PATIENCE) for future in futures] == [[text] for text in "ABCDEF"]
    assert upper.batches == [["a", "c"], ["b", "f"], ["d"], ["e"]]


def test_an_error_reaches_only_who_asked_for_it(worker, held):
    upper = Upper()
    good, bad, other = (worker.submit(upper, [text], "key") for text in ("a", "bad", "c"))
    held.open.set()
    assert good.result(PATIENCE) == ["A"]
    assert other.result(PATIENCE) == ["C"]
    with pytest.raises(UsageError):
        bad.result(PATIENCE)


def test_missing_results_are_an_error(worker):
    with pytest.raises(RunError, match="results are missing"):
        worker.submit(lambda items: items[1:], [1, 2]).result(PATIENCE)


def test_a_full_queue_refuses_until_someone_leaves(worker, held):
    upper = Upper()
    futures = [worker.submit(upper, [f"{i}"]) for i in range(8)]
    assert worker.waiting == 8
    with pytest.raises(OverloadedError):
        worker.submit(upper, ["x"])
    with pytest.raises(OverloadedError):
        worker.stream(telling("x"), print)
    assert futures[3].cancel()
    late = worker.submit(upper, ["late"])
    held.open.set()
    assert late.result(PATIENCE) == ["LATE"]
    assert [b[0] for b in upper.batches] == ["0", "1", "2", "4", "5", "6", "7", "late"]


def test_who_left_before_is_never_run(worker, held):
    upper = Upper()
    gone, stays = worker.submit(upper, ["gone"], 1), worker.submit(upper, ["stays"], 1)
    assert gone.cancel()
    held.open.set()
    assert stays.result(PATIENCE) == ["STAYS"]
    assert upper.batches == [["stays"]]


def telling(pieces):
    """A stream of these pieces that gives them joined."""

    def run(hear):
        for piece in pieces:
            hear(piece)
        return "".join(pieces)

    return run


def test_a_stream_tells_its_pieces_in_order_and_gives_its_result(worker):
    got = []
    assert worker.stream(telling(["a", " b", " c"]), got.append).future.result(PATIENCE) == "a b c"
    assert got == ["a", " b", " c"]


def test_streams_run_in_order_and_jobs_between_their_pieces(worker, held):
    got, seen = [], []
    first, second = worker.stream(telling("abc"), got.append), worker.stream(telling("123"), got.append)
    jobs = [worker.submit(lambda items: seen.append("".join(got)) or items, [0]) for _ in range(3)]
    held.open.set()
    for one in (first.future, second.future, *jobs):
        one.result(PATIENCE)
    assert "".join(got) == "abc123"
    assert seen == ["", "a", "ab"]


def test_a_stream_stops_when_it_is_left(worker):
    ended, got, enough = threading.Event(), [], threading.Event()

    def endless(hear):
        try:
            while True:
                hear("x")
        finally:
            ended.set()

    def put(piece):
        got.append(piece)
        if len(got) == 5:
            enough.set()

    stream = worker.stream(endless, put)
    assert enough.wait(PATIENCE)
    stream.cancel()
    with pytest.raises(CancelledError):
        stream.future.result(PATIENCE)
    assert ended.is_set()
    made = len(got)
    assert worker.submit(lambda items: items, [1]).result(PATIENCE) == [1]
    assert len(got) == made


def test_a_stream_that_is_left_before_it_began_never_runs(worker, held):
    got = []
    gone, stays = worker.stream(telling("a"), got.append), worker.stream(telling("b"), got.append)
    gone.cancel()
    held.open.set()
    assert stays.future.result(PATIENCE) == "b"
    assert got == ["b"]
    assert gone.future.cancelled()


def fail(*_):
    raise UsageError("broken")


@pytest.mark.parametrize(("run", "put"), [(fail, print), (telling("ab"), fail)], ids=["run", "put"])
def test_an_error_ends_its_stream_alone(worker, run, put):
    with pytest.raises(UsageError):
        worker.stream(run, put).future.result(PATIENCE)
    assert worker.submit(lambda items: items, [1]).result(PATIENCE) == [1]
    assert worker.waiting == 0


def test_closing_ends_a_stream_at_its_next_piece():
    worker, begun, go = Worker(), threading.Event(), threading.Event()

    def run(hear):
        begun.set()
        assert go.wait(PATIENCE)
        hear("a")

    stream = worker.stream(run, print)
    assert begun.wait(PATIENCE)
    closing = threading.Thread(target=worker.close)
    closing.start()
    until_closed(worker)
    go.set()
    closing.join(PATIENCE)
    with pytest.raises(StoppingError):
        stream.future.result(PATIENCE)


def until_closed(worker):
    while True:
        try:
            worker.submit(Upper(), ["c"]).cancel()
            time.sleep(0.001)
        except OverloadedError:
            pass
        except StoppingError:
            return


def test_closing_finishes_what_runs_and_refuses_the_rest():
    worker, gate = Worker(), Gate()
    running = worker.submit(gate, [1])
    assert gate.begun.wait(PATIENCE)
    waits, stream = worker.submit(Upper(), ["a"]), worker.stream(telling("ab"), print)
    gone = worker.submit(Upper(), ["b"])
    gone.cancel()
    closing = threading.Thread(target=worker.close)
    closing.start()
    until_closed(worker)
    gate.open.set()
    closing.join(PATIENCE)
    assert running.result(PATIENCE) == [1]
    for future in (waits, stream.future):
        with pytest.raises(StoppingError):
            future.result(PATIENCE)
    with pytest.raises(StoppingError):
        worker.stream(telling("a"), print)


def test_the_sizes_of_batches_are_told():
    sizes, gate = [], Gate()
    worker = Worker(batches=sizes.append)
    worker.submit(gate, [0])
    assert gate.begun.wait(PATIENCE)
    futures = [worker.submit(Upper(), ["a", "b"], 1) for _ in range(3)]
    gate.open.set()
    for future in futures:
        future.result(PATIENCE)
    worker.close()
    assert sizes == [1, 6]


def test_nothing_of_what_was_answered_is_kept(worker):
    class Text(str):
        pass

    import gc
    import weakref

    text = Text("x")
    seen = weakref.ref(text)
    worker.submit(lambda items: [len(item) for item in items], [text], 1).result(PATIENCE)
    del text
    for _ in range(100):  # the worker lets go just after it answered
        gc.collect()
        if seen() is None:
            break
        time.sleep(0.01)
    assert seen() is None
