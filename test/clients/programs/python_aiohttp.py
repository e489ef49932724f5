import asyncio

import aiohttp
from steps import BASE, STEPS, body_of, say


async def main():
    async with aiohttp.ClientSession(trust_env=True) as session:
        for step, method, path in STEPS:
            async with session.request(method, BASE + path, data=body_of(method)) as response:
                say(step, response.status, await response.read())


asyncio.run(main())
