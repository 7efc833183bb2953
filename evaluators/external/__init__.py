"""External responses: rollouts that another program has made, to be measured."""
