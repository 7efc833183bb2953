"""One model on disk: finds its folder, refuses a model that cannot be run, takes its fingerprint.

Reads JSON, the headers of safetensors files and samples of their data; no code of a model runs and
nothing heavy is imported. Whether two models are a pair is decided in `pair_info`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ModelError, StoreError
from engine.system.files import read_json, reason

_SMALL_FILES = ["*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "*.py"]
_TOKENIZER_FILES = [
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "*.tiktoken",
]
_PICKLES = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle"]
_WEIGHT_FILE = re.compile(r"[^/\0]+\.safetensors")
_MAX_HEADER_BYTES = 100_000_000  # as in the safetensors library
_MIB = 1 << 20
_BLOCK_BYTES, _NUM_BLOCKS = 1 << 16, 64
_ADAPTER = (
    "is an adapter: merge it into its base model (merge_and_unload, then save_pretrained) and give"
    " that folder"
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model folder that has passed every check that needs no other model."""

    label: str
    """Its name in messages: "--base /folder"."""
    name: str
    """What an engine loads: an absolute folder, or the hub id."""
    folder: Path
    """Where its files are on this machine."""
    config: dict[str, Any]
    """The content of config.json."""
    weight_bytes: int
    """Size of its safetensors files."""
    fingerprint: str
    """Changes when config.json or the weights do, see `_fingerprint`."""

    def eos_ids(self) -> set[int]:
        """The EOS ids that config.json and generation_config.json name.

        Raises:
            ModelError: One of them is no token id.
        """
        file = self.folder / "generation_config.json"
        generation = _read_object(self.label, file) if file.is_file() else {}
        ids: list[Any] = []
        for config in (self.config, generation):
            value = config.get("eos_token_id")
            if value is not None:
                ids += value if isinstance(value, list) else [value]
        for token in ids:
            if type(token) is not int:
                raise ModelError(
                    f"{self.label} names the EOS id {token!r:.60}, which is no token id: mend its"
                    " config.json"
                )
        return set(ids)


def open_checkpoint(setting: str, model: str) -> Checkpoint:
    """Check a model, and fetch it into the cache of the hub if it is not on this machine.

    Args:
        setting: The option that names the model, "--base" or "--rl", for messages.
        model: A folder or a hub id.

    Raises:
        ModelError: The model cannot be run.
    """
    label = f"{setting} {model}"
    try:
        return _open(label, model)
    except (OSError, RuntimeError) as error:  # RuntimeError: ~name of nobody
        raise ModelError(
            f"{label} cannot be read: {reason(error)}: give a folder that can be"
        ) from error


def _open(label: str, model: str) -> Checkpoint:
    local = Path(model).expanduser()
    is_local = local.exists()
    folder = local.resolve() if is_local else _fetch(label, model, _SMALL_FILES)
    config = _read_config(label, folder)
    if not is_local:  # tens of GB: only once the small files have passed their checks
        folder = _fetch(label, model, ["*.safetensors"])
    _refuse_no_tokenizer(label, folder)
    weights = _weight_files(label, folder)
    fingerprint = _fingerprint(label, folder, weights)
    size = sum(file.stat().st_size for file in weights)
    return Checkpoint(label, str(folder) if is_local else model, folder, config, size, fingerprint)


def _fetch(label: str, model: str, patterns: list[str]) -> Path:
    """The folder of a hub id in the cache, with the files that match the patterns."""
    if (
        not model
        or model.startswith(("/", ".", "~"))
        or model.count("/") > 1
        or model.endswith((".gguf", "/"))
    ):
        raise ModelError(
            f"{label} does not exist: give a model folder, or an id on the Hugging Face Hub"
            " (org/name)"
        )
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except errors.GatedRepoError:
        way_out = (
            f"is gated: accept its licence at https://huggingface.co/{model}, then `hf auth login`"
        )
    except errors.RepositoryNotFoundError:
        way_out = (
            "is no folder here and not on the Hugging Face Hub: check the name; if it is private,"
            " `hf auth login`"
        )
    except Exception as error:  # the client of the hub raises errors of its HTTP library too
        way_out = (
            "is no folder here and cannot be fetched from the Hugging Face Hub"
            f" ({type(error).__name__}): give a folder, or run `hf download {model}` where the hub"
            " is reachable"
        )
    raise ModelError(f"{label} {way_out}")


def _read_config(label: str, folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise ModelError(
            f"{label} is a file: give the folder of a model in Hugging Face format (not GGUF)"
        )
    if not (folder / "config.json").is_file():
        raise ModelError(f"{label} {_explain_no_config(folder)}")
    config = _read_object(label, folder / "config.json")
    architectures = config.get("architectures")
    names = architectures if isinstance(architectures, list) else []
    if not any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        raise ModelError(
            f"{label} is not a causal language model: its config.json says architectures"
            f" {names!s:.200}; give one of a ...ForCausalLM architecture"
        )
    return config


def _explain_no_config(folder: Path) -> str:
    """What a folder without config.json is, and the way out."""
    if (folder / "adapter_config.json").exists():
        return _ADAPTER
    if any(folder.glob("*.gguf")):
        return (
            "holds GGUF files: give the model in Hugging Face format (config.json and safetensors)"
        )
    return "holds no config.json: give the folder of a model in Hugging Face format"


def _refuse_no_tokenizer(label: str, folder: Path) -> None:
    # Without the file transformers makes an empty tokenizer of the model's class.
    if not any(file for pattern in _TOKENIZER_FILES for file in folder.glob(pattern)):
        raise ModelError(
            f"{label} holds no tokenizer: copy tokenizer.json and tokenizer_config.json into the"
            " folder"
        )


def _weight_files(label: str, folder: Path) -> list[Path]:
    """The safetensors files of a model: those of its index, or model.safetensors, or all others.

    Files of an adapter are left out.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = _indexed_names(label, index)
    elif (folder / "model.safetensors").exists():
        names = ["model.safetensors"]
    else:
        names = sorted(
            file.name
            for file in folder.glob("*.safetensors")
            if not file.name.startswith("adapter")
        )
    if not names:
        raise ModelError(f"{label} {_explain_no_weights(folder)}")
    for name in names:
        if not (folder / name).is_file():
            raise ModelError(
                f"{label} is incomplete: {name} is in its index but not in the folder; copy it"
                " again"
            )
    return [folder / name for name in names]


def _indexed_names(label: str, index: Path) -> list[str]:
    """The names of files in an index.

    Raises:
        ModelError: A name is not that of a safetensors file in the same folder.
    """
    files = _read_object(label, index).get("weight_map")
    names: list[Any] = list(files.values()) if isinstance(files, dict) else [None]
    for name in names:
        if not (isinstance(name, str) and _WEIGHT_FILE.fullmatch(name)):
            raise ModelError(
                f"{label} is damaged: {index.name} names {name!r:.60} as a weight file, which is no"
                " safetensors file in the folder; fetch it again"
            )
    return sorted(set(names))


def _explain_no_weights(folder: Path) -> str:
    """What a folder without safetensors files has instead, and the way out."""
    if (folder / "adapter_config.json").exists():
        return _ADAPTER
    if any(file for pattern in _PICKLES for file in folder.glob(pattern)):
        return (
            "holds pickled weights only, which can run code when they are read: load it once where"
            " you trust it and save it again with save_pretrained, which writes safetensors"
        )
    return "holds no safetensors weights: copy them into the folder"


def _fingerprint(label: str, folder: Path, weights: list[Path]) -> str:
    """SHA-256 of config.json and of the name, size, header and samples of each weight file.

    Samples, since reading 60 GB per model would take minutes: the first and the last MiB, and 64
    blocks of 64 KiB evenly between them; of a file up to 8 MiB all bytes. The two ends alone are
    not enough: two checkpoints of one RL run often have the same bits there.
    """
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for file in weights:
        digest.update(f"\n{file.name} {file.stat().st_size}\n".encode())
        digest.update(_header(label, file))
        for sample in _samples(file):
            digest.update(sample)
    return digest.hexdigest()


def _samples(file: Path) -> Iterator[bytes]:
    size = file.stat().st_size
    spans = [(0, size)]
    if size > 8 * _MIB:
        step = _NUM_BLOCKS + 1
        blocks = [(size * (i + 1) // step, _BLOCK_BYTES) for i in range(_NUM_BLOCKS)]
        spans = [(0, _MIB), *blocks, (size - _MIB, _MIB)]
    with file.open("rb") as data:
        for offset, length in spans:
            data.seek(offset)
            yield data.read(length)


def _header(label: str, file: Path) -> bytes:
    """The JSON header of a safetensors file.

    Raises:
        ModelError: The file has no such header, or not the length that the header implies.
    """
    size = file.stat().st_size
    with file.open("rb") as data:
        length = int.from_bytes(data.read(8), "little")
        header = data.read(length) if 0 < length <= min(size - 8, _MAX_HEADER_BYTES) else b""
    try:
        end = _end_of_data(json.loads(header))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelError(
            f"{label} is damaged: {file.name} is not a safetensors file; fetch it again (git: `git"
            " lfs pull`)"
        ) from None
    if size != 8 + length + end:
        raise ModelError(
            f"{label} is damaged: {file.name} has {size} bytes, its header says {8 + length + end};"
            " copy it again"
        )
    return header


def _end_of_data(tensors: dict[str, Any]) -> int:
    """The byte after the data of the last tensor, from the start of the data.

    Raises:
        ValueError: The data have gaps or overlap. A header of another shape raises other errors.
    """
    spans = [tensor["data_offsets"] for name, tensor in tensors.items() if name != "__metadata__"]
    end = 0
    for start, stop in sorted(spans):
        if type(start) is not int or type(stop) is not int or not end == start <= stop:
            raise ValueError("the data of the tensors have gaps, or overlap")
        end = stop
    return end


def _read_object(label: str, file: Path) -> dict[str, Any]:
    try:
        return read_json(file)
    except StoreError as error:
        raise ModelError(f"{label}: {error}") from error
