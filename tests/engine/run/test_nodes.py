"""Several nodes: pairs are kept on one node where it has room, else span two, and give what one
machine gives.

The nodes are Ray's, on this machine: one with room for a pair, and two with room for an engine
each.
"""

from __future__ import annotations

import io
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import ray
from ray.cluster_utils import Cluster

from engine.lockstep import ray_private
from engine.lockstep.engine_pair import PairConfig
from engine.run.execute import execute
from engine.run.hosting import Hosting, hosted_by
from engine.run.plan import Plan
from engine.store.run_store import RunStore
from engine.store.verify import verify_run
from engine.system.display import PlainDisplay
from tests.support.engines import assert_same, end_kept_pair, of_plan, plan_of, undisturbed
from tests.support.watched_pair import WatchedPair

NODES = (2, 1, 1)  # CPUs, of which an engine takes one
TWO_PAIRS = {"pairs": 2, "max_num_seqs": 4, "limit": 8, "samples": 2}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    return undisturbed(tmp_path_factory)


@pytest.fixture(scope="module")
def address(store: RunStore) -> Iterator[str]:
    """host:port of a cluster that asks for a token; this process has the token, and has not
    joined.
    """
    end_kept_pair()
    ray.shutdown()
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(prefix="ray-") as folder,
    ):
        # Where Ray notes the address of the cluster, which the folder of the nodes is not.
        patch.setenv("RAY_TMPDIR", folder)
        (Path(folder) / "ray").mkdir()
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        ray_private.forget_token()
        cluster = Cluster()
        try:
            for num_cpus in NODES:
                cluster.add_node(
                    num_cpus=num_cpus,
                    object_store_memory=2**27,
                    include_dashboard=False,
                    temp_dir=folder,
                )
            yield cluster.address
        finally:
            ray.shutdown()
            cluster.shutdown()


class Carried(NamedTuple):
    """A run on the nodes, its pairs of engines, and what it said meanwhile."""

    plan: Plan
    run: RunStore
    pairs: list[WatchedPair]
    said: list[str]


@pytest.fixture(scope="module")
def carried(address: str, tmp_path_factory: pytest.TempPathFactory) -> Carried:
    plan = plan_of(
        **TWO_PAIRS, ray_address=address, out=str(tmp_path_factory.mktemp("nodes") / "run")
    )
    said = io.StringIO()
    pairs: list[WatchedPair] = []

    def make_pair(config: PairConfig) -> WatchedPair:
        pairs.append(WatchedPair(config))
        return pairs[-1]

    with hosted_by(Hosting(make_pair)):
        run = execute(plan, None, PlainDisplay(said))
    return Carried(plan, run, pairs, said.getvalue().splitlines())


def test_a_pair_is_kept_on_one_node_and_spans_two_only_where_none_has_room(
    carried: Carried,
) -> None:
    placed = sorted(line.partition(": ")[2] for line in carried.said if "rendezvous" in line)
    address = re.escape(carried.plan.config.ray_address or "").partition(":")[0]
    expected = [
        rf"base on {address}, rl on {address}, tcp rendezvous",
        rf"on {address}, shm rendezvous",
    ]
    assert len(placed) == 2 and all(map(re.fullmatch, expected, placed)), placed


def test_where_the_pairs_are_is_said_before_anything_is_loaded(carried: Carried) -> None:
    placed = [number for number, line in enumerate(carried.said) if "rendezvous" in line]
    ready = [number for number, line in enumerate(carried.said) if ": ready" in line]
    assert len(placed) == len(ready) == 2 and placed[0] < ready[0] and placed[1] < ready[1]


def test_each_pair_has_as_many_sequences_in_flight_as_it_may(carried: Carried) -> None:
    assert [pair.seen.most_in_flight for pair in carried.pairs] == [4, 4]


def test_pairs_on_several_nodes_give_token_for_token_what_one_machine_gives(
    carried: Carried, store: RunStore
) -> None:
    assert verify_run(RunStore.read(carried.plan.out)).complete
    assert_same(carried.run.tokens().to_table(), of_plan(store, carried.plan))
