"""Photos that wait at the same time are recognised together, and one alone does not wait for others."""

import threading

import pytest

from productrec.serving.batching import Batcher


class Network:
    """Notes its batches, and waits in each until it may go on."""

    def __init__(self):
        self.batches, self.entered, self.go_on = [], threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, photos):
        self.batches.append(list(photos))
        self.entered.release()
        assert self.go_on.acquire(timeout=30)
        if "bad" in photos:
            raise ValueError("no network")
        return [photo.upper() for photo in photos]


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def batcher(network):
    batcher = Batcher(network, batch_size=3)
    yield batcher
    network.go_on.release(100)
    batcher.close(30)


def test_what_waits_meanwhile_is_one_batch_up_to_its_size(network, batcher):
    first = batcher.submit("a")
    assert network.entered.acquire(timeout=30)  # alone, at once
    others = [batcher.submit(photo) for photo in "bcde"]
    network.go_on.release(3)
    assert [future.result(30) for future in (first, *others)] == ["A", "B", "C", "D", "E"]
    assert network.batches == [["a"], ["b", "c", "d"], ["e"]]


def test_an_error_is_told_to_its_batch_and_the_next_is_answered(network, batcher):
    network.go_on.release(2)
    with pytest.raises(ValueError, match="no network"):
        batcher.submit("bad").result(30)
    assert batcher.submit("good").result(30) == "GOOD"


def test_a_network_that_answers_for_too_few_is_told_and_the_next_are_answered():
    batcher = Batcher(lambda photos: [photo for photo in photos if photo != "lost"], batch_size=3)
    with pytest.raises(RuntimeError, match="1 photos must have as many answers; got 0"):
        batcher.submit("lost").result(30)
    assert batcher.submit("good").result(30) == "good"
    batcher.close(30)


def test_who_gave_up_is_not_recognised(network, batcher):
    batcher.submit("a")
    assert network.entered.acquire(timeout=30)
    gone, stays = batcher.submit("b"), batcher.submit("c")
    assert gone.cancel()
    network.go_on.release(2)
    assert stays.result(30) == "C"
    assert network.batches == [["a"], ["c"]]


def test_closing_answers_what_was_submitted(network):
    batcher = Batcher(network, batch_size=2)
    futures = [batcher.submit(photo) for photo in "abcde"]
    network.go_on.release(5)
    batcher.close(30)
    assert [future.result(0) for future in futures] == list("ABCDE")
