"""What a run costs, in time and GPU hours, estimated before anything is loaded.

The work is counted in sequences of one length, the pair's speed is a roofline (`roofline`). Loading
is left out. Until lengths are seen a response is taken to be as long as it may be, so that the
estimate is a bound as far as the roofline holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.config.run_config import RunConfig
from engine.core import POLICIES
from engine.models.devices import ASSUMED_GPU, cpu, gpu
from engine.models.memory import MemoryEstimate
from engine.models.pair_info import DTYPE_BYTES, PairInfo
from engine.models.roofline import EngineLoad, PairRoofline
from engine.system.machine import visible_gpus

# As much of a GPU's free memory as an engine's KV cache takes, about.
_SHARE_OF_FREE_MEMORY = 0.9


@dataclass(frozen=True, slots=True)
class Amount:
    """The sequences that a run consists of, which all count as equally long."""

    num_paired: int
    """Sequences that both engines carry."""
    num_solo: Mapping[str, int]
    """Policy -> sequences that its engine carries alone."""
    prompt_tokens: int
    """Of a prompt, at most."""
    length: float
    """Tokens of a response."""
    is_limit: bool
    """Whether `length` is the most that a response may have, else what they have on average."""
    num_measured: int = 0
    """Sequences of the same length that both engines measure as prompts."""


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """What a run costs after its engines are loaded, and how that was estimated."""

    seconds: float | None
    """Wall time; None if the speed of the device is not known."""
    num_gpus: int
    """GPUs that the run holds; 0 on a CPU."""
    amount: Amount
    roofline: PairRoofline | None
    """The speed of each pair."""
    num_slots: int
    """Sequences that one pair has in flight, as far as its KV cache has room."""
    device_name: str

    @property
    def gpu_hours(self) -> float | None:
        """GPUs times hours; None if the speed of the device is not known."""
        return None if self.seconds is None else self.num_gpus * self.seconds / 3600

    def __str__(self) -> str:
        """One line for people, with its assumption."""
        gpus = f"{self.num_gpus} GPU{'s' if self.num_gpus > 1 else ''}"
        where = f"on {gpus} ({self.device_name})" if self.num_gpus else f"on {self.device_name}"
        if self.seconds is None:
            return f"unknown {where}, which xsample has no figures of; the run shows what is left"
        about = f"about {rough_duration(self.seconds)} {where}"
        if self.num_gpus:
            about = f"about {self.gpu_hours:.2g} GPU hours, {about.removeprefix('about ')}"
        if not self.amount.is_limit:
            return about
        return f"at most {about}, if responses are {self.amount.length:,.0f} tokens"


def estimate_cost(
    pair: PairInfo,
    config: RunConfig,
    memory: MemoryEstimate,
    amount: Amount,
    max_model_len: int,
    max_num_seqs: int,
) -> CostEstimate:
    """Estimate what a run costs on the devices of this machine.

    Args:
        pair: The models.
        config: The settings of the run.
        memory: What a pair needs on a device.
        amount: What is to be made.
        max_model_len: Context of the engines, in tokens.
        max_num_seqs: Sequences that an engine works on at the same time, at most.
    """
    gpus = visible_gpus() if config.device != "cpu" else []
    on_gpu = config.device == "cuda" or bool(gpus)
    gpu_name = (gpus[0].name if gpus else ASSUMED_GPU) if on_gpu else None
    roofline = pair_roofline(pair, config, gpu_name)
    num_gpus = (1 if config.share_gpu else 2) * config.tensor_parallel_size * config.pairs
    context = amount.prompt_tokens + amount.length / 2
    num_slots = _num_slots(config, max_num_seqs, memory, context / max_model_len, on_gpu)
    seconds = run_seconds(roofline, amount, num_slots, config.pairs) if roofline else None
    where = gpu_name or "this machine's CPU"
    if on_gpu and not gpus:
        where += " assumed, none is visible here"
    return CostEstimate(seconds, num_gpus if on_gpu else 0, amount, roofline, num_slots, where)


def pair_roofline(pair: PairInfo, config: RunConfig, gpu_name: str | None) -> PairRoofline | None:
    """The speed of one pair, None if its GPU is not known.

    Args:
        pair: The models.
        config: The settings of the run.
        gpu_name: As torch gives it; None on the CPU, whose cores all engines share.
    """
    dtype = pair.dtype if config.dtype == "auto" else config.dtype
    dtype_bytes, ranks = DTYPE_BYTES[dtype], config.tensor_parallel_size
    if gpu_name is None:
        device = cpu(len(POLICIES) * config.pairs * ranks)
    elif (known := gpu(gpu_name, dtype_bytes, ranks)) is not None:
        device = known
    else:
        return None
    sizes = {
        "base": (pair.base_weight_bytes, pair.base_kv_numbers),
        "rl": (pair.rl_weight_bytes, pair.rl_kv_numbers),
    }
    loads = {}
    for policy, (stored_bytes, kv_numbers) in sizes.items():
        num_weights = stored_bytes / DTYPE_BYTES[pair.dtype]
        whole = EngineLoad(num_weights * dtype_bytes, kv_numbers * dtype_bytes, 2 * num_weights)
        loads[policy] = whole.divided(ranks)
    return PairRoofline(loads, device, config.share_gpu and gpu_name is not None)


def run_seconds(roofline: PairRoofline, amount: Amount, num_slots: int, num_pairs: int) -> float:
    """Seconds that so many pairs take for this amount, shared equally, slot after slot.

    First the paired sequences, then what either engine carries alone, side by side, and what both
    measure.
    """
    solo = {policy: number for policy, number in amount.num_solo.items() if number}
    if roofline.is_shared and len(solo) > 1:
        together = max(solo.values())
        alone = phase_seconds(roofline, amount, num_slots, num_pairs, together, tuple(solo))
    else:
        times = [
            phase_seconds(roofline, amount, num_slots, num_pairs, number, (policy,))
            for policy, number in solo.items()
        ]
        alone = max(times, default=0.0)
    paired = phase_seconds(roofline, amount, num_slots, num_pairs, amount.num_paired, POLICIES)
    share = -(-amount.num_measured // num_pairs)
    measured = roofline.prefill_seconds(share * (amount.prompt_tokens + amount.length), POLICIES)
    return paired + alone + measured


def phase_seconds(
    roofline: PairRoofline,
    amount: Amount,
    num_slots: int,
    num_pairs: int,
    num_sequences: int,
    policies: tuple[str, ...],
) -> float:
    """Seconds for so many of the sequences, shared by the pairs, on the engines of `policies`."""
    share = -(-num_sequences // num_pairs)
    num_full, rest = divmod(share, num_slots)
    context = amount.prompt_tokens + amount.length / 2
    steps = 0.0
    if num_full:
        steps = num_full * roofline.step_seconds(num_slots, context, policies)
    if rest:
        steps += roofline.step_seconds(rest, context, policies)
    prompts = roofline.prefill_seconds(share * amount.prompt_tokens, policies)
    return amount.length * steps + prompts


def _num_slots(
    config: RunConfig,
    max_num_seqs: int,
    memory: MemoryEstimate,
    share_of_context: float,
    on_gpu: bool,
) -> int:
    """Sequences of so much of the full context that one engine has room for, at least 1."""
    num_engines = 1 if on_gpu and not config.share_gpu else len(POLICIES)
    room = memory.kv_cache
    if room is None and memory.available is not None and config.num_kv_blocks is None:
        room = int(_SHARE_OF_FREE_MEMORY * memory.available) - memory.weights
    if room is None:
        return max_num_seqs
    sequence_bytes = max(1.0, memory.kv_per_sequence * share_of_context)
    return max(1, min(max_num_seqs, int(room / num_engines / sequence_bytes)))


def rough_duration(seconds: float) -> str:
    """A time that is roughly known: two digits at most, in seconds, minutes, hours or days."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            number = seconds / size
            return f"{number:.1f} {unit}" if number < 9.95 else f"{number:.0f} {unit}"
    return f"{max(1, round(seconds))} s"
