"""Stage one, the base model: next-token prediction on the mixed corpus, from random weights."""

import torch
from tokenizers import Tokenizer

from recipes.corpus import Style
from recipes.model import build_model
from recipes.supervised import Supervised, SupervisedConfig

PRETRAINING = SupervisedConfig(num_steps=2000, learning_rate=2e-3, style=Style())


def pretraining(tokenizer: Tokenizer, config: SupervisedConfig, seed: int) -> Supervised:
    """The stage; the seed draws the first weights and the texts."""
    torch.manual_seed(seed)
    return Supervised(build_model(), tokenizer, config, seed, {"stage": "pretrain"})
