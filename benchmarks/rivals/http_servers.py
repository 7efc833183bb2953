"""Rival (d): two OpenAI-compatible vLLM servers on loopback, and a client that asks both for every
token.

In the style of the scripts that interleave models over HTTP: each sequence in flight, 64 of them,
is a coroutine that sends its prefix to both servers at once, as token ids with max_tokens=1,
decides in NumPy from the 50 top log-probabilities of each answer, and sends the longer prefix. The
servers keep prefixes in their caches and need no tokenizer; each computes on a core of its own, and
whatever else they and the client do takes its turn there.

The locked environment leaves out what vLLM's server imports beside the engine (uvicorn, watchfiles,
mistral_common): this rival needs vLLM with all its requirements, and says so where one is missing.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import psutil

from benchmarks.rivals import top_logprobs
from benchmarks.rivals.ask import Ask
from benchmarks.rivals.per_token import decide
from benchmarks.rivals.top_logprobs import TOP, Truncated, has_ended
from engine.core import budget_order

if TYPE_CHECKING:
    import aiohttp

ENVIRONMENT = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"}
_HOST = "127.0.0.1"
_KV_BYTES = 2**28
# Prefixes are found again by whole blocks: with vLLM's 128 on the CPU, most responses of the
# embedded pair have none.
_BLOCK_SIZE = 32
_ROUNDING = 1e-9
_LOADING_SECONDS, _ENDING_SECONDS = 600.0, 15.0
# The server module as `python -m` runs it, but ended (PR_SET_PDEATHSIG) with the process that
# started it.
_MAIN = """
import ctypes, runpy, signal
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)
"""


class HttpServers:
    """See the module. Starts both servers when it is made; `close` ends them. batch: sequences in
    flight.
    """

    def __init__(
        self, primary: str, intervention: str, max_model_len: int, batch: int = 64
    ) -> None:
        self._models, self._batch = (primary, intervention), batch
        cores = sorted(os.sched_getaffinity(0))
        places = zip(self._models, free_ports(2), (cores[0], cores[-1]), strict=True)
        self._servers = [
            Server(model, port, core, max_model_len, batch) for model, port, core in places
        ]

    def ready(self) -> None:
        """Waits until both servers answer. Raises RuntimeError with a server's last words if it
        ends instead.
        """
        for server in self._servers:
            server.wait()

    def respond(self, ask: Ask, seed: int) -> list[list[int]]:
        """One response a prompt; each sequence has its own noise, so that their order does not
        matter.
        """
        top_logprobs.check(ask)
        assert (ask.primary, ask.intervention) == self._models, (
            "these are not the models that were loaded"
        )
        return asyncio.run(self._respond(ask, seed))

    def close(self) -> None:
        """End both servers and everything that they started."""
        for server in self._servers:
            server.end()

    async def _respond(self, ask: Ask, seed: int) -> list[list[int]]:
        import aiohttp

        flying = asyncio.Semaphore(self._batch)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def one(prompt: list[int], noise: np.random.Generator) -> list[int]:
                async with flying:
                    return await self._sequence(session, ask, prompt, noise)

            noises = map(
                np.random.default_rng, np.random.SeedSequence(seed).spawn(len(ask.prompts))
            )
            return await asyncio.gather(*map(one, ask.prompts, noises))

    async def _sequence(
        self,
        session: aiohttp.ClientSession,
        ask: Ask,
        prompt: list[int],
        noise: np.random.Generator,
    ) -> list[int]:
        primary, other = self._servers
        response: list[int] = []
        left = np.array([budget_order(ask.budget)])
        while not has_ended(response, ask):
            asked = [primary, other] if left[0] else [primary]
            answers = await asyncio.gather(
                *(server.next(session, prompt + response) for server in asked)
            )
            p, q = (nucleus(answer, ask.sampling.top_p) for answer in (answers[0], answers[-1]))
            token, intervened = decide(p, q, left, ask.threshold, noise)
            left -= intervened
            response.append(int(token[0]))
        return response


class Server:
    """One server, started; `wait` until it answers. core: where its engine computes."""

    def __init__(
        self, model: str, port: int, core: int, max_model_len: int, max_num_seqs: int
    ) -> None:
        self._port = port
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the server lives
        options = {
            "model": model, "served-model-name": "it", "host": _HOST, "port": port,
            "max-model-len": max_model_len, "max-num-seqs": max_num_seqs, "max-logprobs": TOP,
            "kv-cache-memory-bytes": _KV_BYTES, "block-size": _BLOCK_SIZE,
            "generation-config": "vllm", "uvicorn-log-level": "error",
        }  # fmt: skip
        flags = [
            "--enable-prefix-caching",
            "--enforce-eager",
            "--skip-tokenizer-init",
            "--disable-log-stats",
        ]
        flags += [f"--{name}={value}" for name, value in options.items()]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, *flags],
            env=os.environ | {"VLLM_CPU_OMP_THREADS_BIND": str(core)},
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def wait(self) -> None:
        """Until it answers. Raises RuntimeError with its last words if it ends, or does not in
        time.
        """
        deadline = time.monotonic() + _LOADING_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"a vLLM server did not start: {_last_line(self._log)}")
            time.sleep(0.2)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(_HOST, self._port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    async def next(self, session: aiohttp.ClientSession, prefix: list[int]) -> dict[str, float]:
        """Log-probabilities of the top tokens after a prefix, by "token_id:N"; of the full
        distribution.
        """
        body = {
            "model": "it", "prompt": prefix, "max_tokens": 1, "temperature": 0, "logprobs": TOP,
            "return_tokens_as_token_ids": True, "ignore_eos": True,
        }  # fmt: skip
        async with session.post(f"http://{_HOST}:{self._port}/v1/completions", json=body) as answer:
            answer.raise_for_status()
            found: dict[str, Any] = json.loads(await answer.read())
        top: dict[str, float] = found["choices"][0]["logprobs"]["top_logprobs"][0]
        return top

    def end(self) -> None:
        """Ask it to end, so that it takes its shared memory away; kill what is left of it and its
        children.
        """
        if self._process.poll() is None:
            server = psutil.Process(self._process.pid)
            with_children = [server, *server.children(recursive=True)]
            self._process.terminate()
            _, alive = psutil.wait_procs(with_children, _ENDING_SECONDS)
            for process in alive:
                process.kill()
            self._process.wait()
        self._log.close()


def nucleus(top: dict[str, float], top_p: float) -> Truncated:
    """One row, cut at top_p, from a server's log-probabilities by "token_id:N"."""
    token = np.array([int(name.partition(":")[2]) for name in top])
    p = np.exp(np.fromiter(top.values(), np.float64, len(top)))
    order = np.argsort(-p, kind="stable")
    token, p = token[order], p[order]
    kept = np.cumsum(p) - p < (top_p - _ROUNDING if top_p < 1 else np.inf)
    return Truncated(token[None, kept], p[None, kept] / p[kept].sum())


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on, all different."""
    sockets = [socket.create_server((_HOST, 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = [
        line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()
    ]
    return lines[-1] if lines else "it said nothing"
