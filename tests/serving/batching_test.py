"""Tests of batching: requests are computed together, in their order, and none is lost."""

import asyncio
import threading
import time

import pytest

from contextjax.serving.batching import Batcher, Full


def test_what_comes_together_is_computed_together_and_each_has_its_own_answer():
    sizes = []

    def run(items):
        sizes.append(len(items))
        time.sleep(0.02)
        return [2 * item for item in items]

    async def ask():
        batcher = Batcher(run, largest=8, wait=0.01, waiting=100)
        results = await asyncio.gather(*(batcher(item) for item in range(50)))
        await batcher.close()
        return results

    assert asyncio.run(ask()) == [2 * item for item in range(50)]
    assert max(sizes) == 8 and len(sizes) <= 8 and sum(sizes) == 50


def test_one_alone_waits_no_longer_than_it_has_to():
    async def ask():
        batcher = Batcher(list, largest=8, wait=0.3, waiting=100)
        begin = time.monotonic()
        await batcher(1)
        alone = time.monotonic() - begin
        begin = time.monotonic()
        await asyncio.gather(*(batcher(item) for item in range(8)))
        full = time.monotonic() - begin
        await batcher.close()
        return alone, full

    alone, full = asyncio.run(ask())
    assert alone >= 0.3 > full


def test_too_many_are_refused_and_the_others_answered():
    go = threading.Event()

    def run(items):
        go.wait(10)
        return items

    async def ask():
        batcher = Batcher(run, largest=1, wait=0.0, waiting=3)
        first = asyncio.create_task(batcher("first"))
        while len(batcher) or not first.get_coro().cr_await:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)  # it is being computed
        others = [asyncio.create_task(batcher(item)) for item in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(Full):
            await batcher("one too many")
        go.set()
        results = await asyncio.gather(first, *others)
        await batcher.close()
        return results

    assert asyncio.run(ask()) == ["first", 0, 1, 2]


def test_an_error_reaches_those_of_its_batch_alone():
    def run(items):
        if "bad" in items:
            raise ZeroDivisionError
        return items

    async def ask():
        batcher = Batcher(run, largest=2, wait=0.0, waiting=10)
        results = await asyncio.gather(*(batcher(item) for item in ("bad", "a", "b", "c")), return_exceptions=True)
        await batcher.close()
        return results

    first, second, *rest = asyncio.run(ask())
    assert isinstance(first, ZeroDivisionError) and isinstance(second, ZeroDivisionError) and rest == ["b", "c"]


def test_one_whose_client_has_left_is_not_computed():
    seen = []

    def run(items):
        seen.extend(items)
        time.sleep(0.05)
        return items

    async def ask():
        batcher = Batcher(run, largest=1, wait=0.0, waiting=10)
        tasks = [asyncio.create_task(batcher(item)) for item in range(3)]
        await asyncio.sleep(0.02)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await batcher.close()

    asyncio.run(ask())
    assert seen == [0, 2]


def test_the_items_of_one_client_are_taken_or_refused_together():
    go = threading.Event()

    def run(items):
        go.wait(10)
        return [2 * item for item in items]

    async def ask():
        batcher = Batcher(run, largest=2, wait=0.0, waiting=3)
        first = asyncio.create_task(batcher.many([1, 2, 3, 4, 5]))  # more than may wait: nobody else does
        while len(batcher) != 3:
            await asyncio.sleep(0.01)
        for call in (batcher.many([6]), batcher(6)):
            with pytest.raises(Full):
                await call
        go.set()
        results = await first
        assert await batcher.many([7, 8, 9]) == [14, 16, 18]
        await batcher.close()
        return results

    assert asyncio.run(ask()) == [2, 4, 6, 8, 10]
