"""Reads everything a Redis holds, to search for what must not be there."""

from typing import Any

from redis.asyncio import Redis


async def dump(redis: Redis) -> bytes:
    """All names and values that belong to the product."""
    parts: list[bytes] = []
    readers: dict[bytes | str, Any] = {
        b"string": redis.get,
        b"hash": redis.hgetall,
        b"set": redis.smembers,
        b"zset": lambda name: redis.zrange(name, 0, -1),
        b"list": lambda name: redis.lrange(name, 0, -1),
        b"stream": redis.xrange,
    }
    async for name in redis.scan_iter("*"):
        kind = await redis.type(name)
        if kind == b"none":
            continue  # it expired since it was listed
        parts += [name, repr(await readers[kind](name)).encode()]
    return b"\n".join(parts)
