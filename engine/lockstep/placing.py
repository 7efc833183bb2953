"""Where in a Ray cluster the two engines of a pair run: the room they reserve and give back."""

from __future__ import annotations

import threading
from contextlib import suppress

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from engine.errors import EngineError
from engine.lockstep.worker import Place

_ONE_NODE_SECONDS, _ANY_NODE_SECONDS, _RETURN_SECONDS = 3.0, 60.0, 2.0


def reserve(num_cpus: float, num_gpus: float, share_gpu: bool) -> PlacementGroup:
    """Reserve room for two engines, on one node if any node has it, else on two nodes.

    Args:
        num_cpus: Cores of each engine.
        num_gpus: GPUs of each engine; 0 on a CPU, a fraction where both share one GPU.
        share_gpu: Both engines in one bundle, so that they get the same GPU.

    Raises:
        EngineError: The cluster has no such room within a minute.
    """
    per_engine = {"CPU": num_cpus} | ({"GPU": num_gpus} if num_gpus else {})
    both = {name: 2 * number for name, number in per_engine.items()}
    bundles = [both] if share_gpu else [per_engine] * 2
    if _fits_one_node(both) and (group := _wait_for(bundles, "STRICT_PACK", _ONE_NODE_SECONDS)):
        return group
    if group := _wait_for(bundles, "PACK", _ANY_NODE_SECONDS):
        return group
    have = ray.cluster_resources()
    raise EngineError(
        f"no room for a pair: it needs 2 x {per_engine}, the cluster has CPU"
        f" {have.get('CPU', 0):g}, GPU {have.get('GPU', 0):g}; give fewer --pairs or a smaller"
        " --tensor-parallel-size"
    )


def give_back(group: PlacementGroup) -> None:
    """Return reserved room, without waiting for a cluster that has just died.

    Ray waits a minute for a GCS that died a moment ago. What is not returned in time goes with the
    driver's job.
    """

    def remove() -> None:
        with suppress(Exception):
            remove_placement_group(group)

    thread = threading.Thread(target=remove, daemon=True)
    thread.start()
    thread.join(_RETURN_SECONDS)


def address_of(place: Place) -> str:
    """The address of a worker's node, as the cluster knows it."""
    return next(
        str(node["NodeManagerAddress"]) for node in ray.nodes() if node["NodeID"] == place.node_id
    )


def _fits_one_node(resources: dict[str, float]) -> bool:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return any(
        all(node.get(name, 0) >= number for name, number in resources.items()) for node in nodes
    )


def _wait_for(
    bundles: list[dict[str, float]], strategy: str, seconds: float
) -> PlacementGroup | None:
    group = placement_group(bundles, strategy=strategy)
    if group.wait(seconds):
        return group
    remove_placement_group(group)
    return None
