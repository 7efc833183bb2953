"""The sections of a report in their order, with definitions, measurements and drawings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
from matplotlib.figure import Figure

from evaluators.cutoffs import HIGH_DIVERGENCE, NEAR_ZERO
from evaluators.figures import accuracy as draw_accuracy
from evaluators.figures import differences as draw_differences
from evaluators.figures import entropy as draw_entropy
from evaluators.figures import evolution as draw_evolution
from evaluators.figures import identity as draw_identity
from evaluators.figures import mechanics as draw_mechanics
from evaluators.figures import position as draw_position
from evaluators.figures import robustness as draw_robustness
from evaluators.figures import sparsity as draw_sparsity
from evaluators.figures import token_js as draw_token_js
from evaluators.report import counts
from evaluators.report.section import Comparison, Drawing, Measurement, Section
from evaluators.shifts import (
    entropy,
    evolution,
    identity,
    mechanics,
    position,
    robustness,
    sparsity,
)

_PAPER = "arXiv 2603.22446"
_NONE_HIGH = f"no position has a JS above {HIGH_DIVERGENCE:g} nats"


def _without_runs(
    draw: Callable[[pa.Table], Figure | None],
) -> Callable[[pa.Table, Sequence[str]], Figure | None]:
    """A function of a figure whose colours do not stand for runs."""
    return lambda table, runs: draw(table)


ACCURACY = Section(
    "accuracy",
    "Accuracy against the budget",
    "The primary policy (forward: base, reverse: RL) samples a response. Where the criterion"
    " fires, and while the budget lasts, the other policy samples the token: an intervention. It is"
    " effective if the primary would have sampled another token from the same noise. Accuracy is"
    " avg@n, in which each problem weighs the same; intervals are over problems (bootstrap, 95 %);"
    " differences compare the same problems and samples, which have the same noise. Given"
    " responses, which were only measured, are in the tables but not in the figures.",
    f"{_PAPER}, section 3; random-position control: arXiv 2603.22117; paired differences: Miller"
    " 2024",
    (),
    (
        Drawing(
            "accuracy_by_budget",
            draw_accuracy.by_budget,
            ("accuracy",),
            "Accuracy (%) against the budget (at most this many interventions per response), with"
            " 95 % intervals over problems. Flat lines are the two policies alone. n: {n}.",
            counts.responses,
        ),
        Drawing(
            "accuracy_by_share",
            draw_accuracy.by_share,
            ("accuracy",),
            "Accuracy (%) against the share of tokens (%) that interventions replaced, with 95 %"
            " intervals over problems. n: {n}.",
            counts.responses,
        ),
        Drawing(
            "accuracy_differences",
            draw_differences.forest,
            ("accuracy_differences", "accuracy"),
            "Paired differences of accuracy (percentage points) with 95 % intervals over problems."
            " n: {n}.",
            counts.pairs,
        ),
    ),
)

SECTIONS = (
    ACCURACY,
    Section(
        "sparsity",
        "Sparsity: how often the policies differ",
        "JS is the Jensen-Shannon divergence, in nats (0 ... ln 2), between the next-token"
        " distributions from which the two policies sample: truncated to the nucleus and"
        " renormalised. It is measured at the positions that both policies saw. Near zero is JS ≤"
        f" {NEAR_ZERO:g}, high divergence is JS > {HIGH_DIVERGENCE:g} nats. Percentiles, here and"
        " below, are within 0.14 % of their value; all other numbers are exact.",
        f"{_PAPER}, section 2",
        (
            Measurement("js_shares", sparsity.js_shares),
            Measurement("js_histogram", sparsity.js_histogram),
            Measurement("js_percentiles", sparsity.js_percentiles),
        ),
        (
            Drawing(
                "js_histogram",
                draw_sparsity.histogram,
                ("js_histogram",),
                "Share of positions (%) by JS (nats), both axes logarithmic; positions where JS is"
                " exactly 0 are at the left. n: {n}.",
            ),
            Drawing(
                "js_percentiles",
                draw_sparsity.percentiles,
                ("js_percentiles",),
                "Percentiles of JS (nats): the share of positions (%) with at most this JS. n:"
                " {n}.",
            ),
        ),
    ),
    Section(
        "position",
        "Position: where in a response they differ",
        "JS against the position t of a token over the length of its response, in 50 bins of equal"
        " width. Every measured position weighs the same.",
        f"{_PAPER}, section 2",
        (Measurement("js_by_position", position.js_by_position),),
        (
            Drawing(
                "js_by_position",
                draw_position.means,
                ("js_by_position",),
                "Mean JS (nats) against the normalised position t / length. n: {n}.",
            ),
            Drawing(
                "js_by_position_bands",
                draw_position.bands,
                ("js_by_position",),
                "Mean and median JS (nats) against t / length, with the bands between the 25th and"
                " 75th, and the 5th and 95th percentile. n: {n}.",
            ),
        ),
    ),
    Section(
        "entropy",
        "Entropy: how sure the policies are where they differ",
        "Entropy of each policy's full next-token distribution at temperature 1, in nats,"
        " separately for positions near zero, of high divergence, and between.",
        f"{_PAPER}, section 2",
        (
            Measurement("entropy_histogram", entropy.entropy_histogram),
            Measurement("entropy_joint", entropy.entropy_joint),
            Measurement("sequences", entropy.sequences),
        ),
        (
            Drawing(
                "entropy_distributions",
                draw_entropy.distributions,
                ("entropy_histogram",),
                "Distribution of the entropy (nats, bins of 0.1) of base and RL at positions of low"
                " and of high divergence. n: {n}.",
                counts.low_and_high,
            ),
            Drawing(
                "entropy_joint",
                draw_entropy.joint,
                ("entropy_joint",),
                "Positions by entropy under base and under RL (nats, bins of 0.1). n: {n}.",
            ),
            Drawing(
                "entropy_sequences",
                draw_entropy.sequences,
                ("sequences",),
                "Mean JS of a response against its mean entropies (nats), one dot per response. At"
                " most 5,000 responses per direction. n: {n}.",
                counts.sequences,
            ),
        ),
    ),
    Section(
        "identity",
        "Identity: which tokens",
        f"The tokens that were sampled most often where JS > {HIGH_DIVERGENCE:g} and where JS ≤"
        f" {NEAR_ZERO:g} nats, and all JS values of the tokens that are most frequent at high"
        " divergence: such a token can still be near zero at most of its positions.",
        f"{_PAPER}, section 2",
        (
            Measurement("frequent_tokens", identity.frequent_tokens),
            Measurement("token_js", identity.token_js, _NONE_HIGH),
        ),
        (
            Drawing(
                "token_cloud",
                draw_identity.token_cloud,
                ("frequent_tokens",),
                "The most frequent tokens at high and at low divergence: size is frequency, colour"
                " the share of a token's positions that are of high divergence. n: {n}.",
                counts.low_and_high,
            ),
            Drawing(
                "token_js",
                draw_token_js.heat_rows,
                ("token_js",),
                "All JS values (nats) of the tokens that are most frequent at high divergence. n:"
                " {n}.",
                counts.of_tokens,
            ),
        ),
    ),
    Section(
        "mechanics",
        "Mechanics at high divergence",
        f"At positions with JS > {HIGH_DIVERGENCE:g} nats: how much the lists of the k most"
        " probable tokens overlap; which rank and probability one policy gives the other's most"
        " probable token; and how many positions are unshifted (RL's first choice is base's"
        " first), marginal (second or third) or shifted (further down).",
        f"{_PAPER}, section 4; shift classes: Lin et al. 2023, arXiv 2312.01552",
        (
            Measurement("topk_overlap", mechanics.topk_overlap, _NONE_HIGH + " and stored lists"),
            Measurement("top1_ranks", mechanics.top1_ranks, _NONE_HIGH),
            Measurement("tail_probability", mechanics.tail_probability, _NONE_HIGH),
            Measurement("shift_classes", mechanics.shift_classes),
        ),
        (
            Drawing(
                "topk_overlap",
                draw_mechanics.topk_overlap,
                ("topk_overlap",),
                "Mean share (%) of the k most probable tokens that both policies have in common,"
                " where their lists are stored (JS of at least the run's record_threshold). n:"
                " {n}.",
                counts.with_lists,
            ),
            Drawing(
                "top1_ranks",
                draw_mechanics.top1_ranks,
                ("top1_ranks",),
                "Rank of RL's most probable token under base, and of base's under RL (% of"
                " positions). n: {n}.",
                counts.high_positions,
            ),
            Drawing(
                "tail_probability",
                draw_mechanics.tail_probability,
                ("tail_probability",),
                "Share of positions (%) where one policy gives the other's most probable token a"
                " probability below p, against p. n: {n}.",
                counts.high_positions,
            ),
            Drawing(
                "shift_classes",
                draw_mechanics.shift_classes,
                ("shift_classes",),
                "Unshifted, marginal and shifted positions (%), in all and at high divergence. n:"
                " {n}.",
                counts.all_and_high,
            ),
        ),
    ),
    Section(
        "evolution",
        "Evolution over checkpoints",
        "Runs that measured the same responses under several checkpoints, in the order of their"
        " steps: the distribution of JS, and the Jaccard overlap |A and B| / |A or B| of the"
        " positions of high divergence with those of the last checkpoint.",
        f"{_PAPER}, section 4",
        (),
        (
            Drawing(
                "js_by_step",
                _without_runs(draw_evolution.js_by_step),
                ("js_by_step",),
                "Percentiles of JS (nats) by training step. n: {n}.",
                counts.per_step("js_by_step"),
            ),
            Drawing(
                "high_overlap",
                _without_runs(draw_evolution.high_overlap),
                ("high_overlap",),
                "Jaccard overlap of the positions of high divergence with the last checkpoint's, by"
                " step. n: {n}.",
                counts.per_step("high_overlap"),
            ),
        ),
        (
            Comparison("js_by_step", evolution.js_by_step),
            Comparison("high_overlap", evolution.high_overlap),
        ),
        "Needs two runs or more that measured the same responses under several checkpoints, whose"
        " names contain their step (global_step_100, checkpoint-100): run `xsample score RESPONSES`"
        " with each checkpoint as --rl, then `xsample report` with all of these runs.",
    ),
    Section(
        "robustness",
        "Robustness: other truncations",
        "The same shares under other truncations of the distributions. Where the stored data do"
        " not give JS exactly, they give a lower bound, which is marked; `xsample score RUN --top-p"
        " P` measures any other truncation exactly.",
        f"{_PAPER}, appendices",
        (Measurement("truncations", robustness.truncations),),
        (
            Drawing(
                "truncations",
                draw_robustness.truncations,
                ("truncations",),
                "Share of positions (%) near zero and of high divergence under each truncation. n:"
                " {n}.",
            ),
        ),
    ),
)
