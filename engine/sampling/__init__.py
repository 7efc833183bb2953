"""Two models' logits to one token: nucleus, exchange, criterion, decision, trace."""
