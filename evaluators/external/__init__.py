"""External responses: rollouts that another program made, to be scored under a pair."""
