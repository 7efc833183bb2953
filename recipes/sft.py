"""SFT: next-token prediction on correct worked answers, from the same base model that RL starts
from.

The answers are written by the corpus's writer at its most careful, and not sampled by an RL model:
demonstrations from elsewhere are what SFT is compared with RL for, and they need no RL first. Its
other choices (`First` or `Begin`, ...) stay those of pre-training, so that only what makes an
answer right is taught.
"""

from pathlib import Path

from tokenizers import Tokenizer

from recipes.corpus import CAREFUL
from recipes.model import fingerprint, load_model
from recipes.supervised import Supervised, SupervisedConfig

SFT = SupervisedConfig(num_steps=300, learning_rate=3e-4, style=CAREFUL, num_warmup_steps=30)


def sft(base: Path, tokenizer: Tokenizer, config: SupervisedConfig, seed: int) -> Supervised:
    """The stage, from the model in the folder `base`."""
    return Supervised(
        load_model(base), tokenizer, config, seed, {"stage": "sft", "base": fingerprint(base)}
    )
