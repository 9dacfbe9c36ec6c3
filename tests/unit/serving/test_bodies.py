"""Bodies that come are dropped for others, whatever moment that falls into."""

import asyncio
import time

import pytest

from productrec.serving.bodies import Bodies
from productrec.serving.limits import Limits, RefusedError


def test_one_whose_time_is_up_at_that_moment_can_be_dropped():
    async def come():
        await asyncio.sleep(60)
        yield b""

    async def run():
        bodies, protocol, dropped = Bodies(Limits(timeout_s=0.05)), asyncio.Protocol(), []

        async def read():
            async with bodies.read(come(), length=None, protocol=protocol):
                pass

        reading = asyncio.create_task(read())
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.06, lambda: dropped.append(bodies.drop_slowest()))
        time.sleep(0.1)  # both are due before the reader goes on
        with pytest.raises(RefusedError, match="too many photos are waiting"):
            await reading
        assert dropped == [protocol] and bodies.drop_slowest() is None

    asyncio.run(run())
