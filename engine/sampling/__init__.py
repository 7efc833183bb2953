"""From two models' logits to one token: nucleus, exchange, criterion, decision, trace."""
