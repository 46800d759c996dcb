"""A web application whose heavy requests run in processes of their own.

    python examples/embed_starlette.py      sends itself a few requests and shows the answers
    uvicorn --app-dir examples embed_starlette:app        serves

A request that hangs is answered with 504, one that crashes its process with 500;
no other request is touched, and a client that goes away stops its job.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from supervisor import JobTimedOut, ProcessPool, SupervisorError

TIMEOUT = 2.0


def factorise(number: int) -> list[int]:
    """Runs in a worker: it would hold up the whole server if it ran here."""
    if number == 0:
        time.sleep(60)
    if number < 0:
        os.abort()
    found = []
    divisor = 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1
    return [*found, number] if number > 1 else found


async def factors(request: Request) -> JSONResponse:
    """``GET /factors/{number}``"""
    pool: ProcessPool = request.app.state.pool
    handle = pool.schedule(factorise, (request.path_params["number"],), timeout=TIMEOUT)
    try:
        return JSONResponse({"factors": await handle, "pid": handle.pid})
    except JobTimedOut as exc:
        return JSONResponse({"error": str(exc)}, status_code=504)
    except SupervisorError as exc:
        return JSONResponse({"error": str(exc)}, status_code=500)


async def status(request: Request) -> JSONResponse:
    """``GET /status``"""
    pool: ProcessPool = request.app.state.pool
    return JSONResponse(pool.stats().as_dict())


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Have warm workers before the first request; let running jobs end at the last."""
    async with ProcessPool(num_idle_processes=2, max_jobs=4) as pool:
        app.state.pool = pool
        yield


app = Starlette(
    routes=[Route("/factors/{number:int}", factors), Route("/status", status)], lifespan=lifespan
)


def main() -> None:
    """Send the application a few requests."""
    with TestClient(app) as client:
        for path in ("/factors/600851475143", "/factors/0", "/status"):
            answer = client.get(path)
            print(path, answer.status_code, answer.json())


if __name__ == "__main__":
    main()
