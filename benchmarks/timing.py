"""Medians over interleaved runs: every contestant once a round, round after round."""

import statistics
import time
from dataclasses import dataclass, field

import jax

SAMPLE_SECONDS = 2e-3
"""Calls shorter than this are timed several at a time."""
FEWEST_ROUNDS = 3


@dataclass
class Contestant:
    """A compiled solve with its inputs; `samples` are seconds a call, by round."""

    solve: object
    inputs: list
    calls: int = 0
    estimate: float = 0.0
    samples: dict[int, float] = field(default_factory=dict)

    def once(self):
        """Seconds of one call, with the next variant of the inputs."""
        inputs = self.inputs[self.calls % len(self.inputs)]
        self.calls += 1
        if hasattr(self.solve, "seconds"):
            return self.solve.seconds(inputs)
        start = time.perf_counter()
        jax.block_until_ready(self.solve(inputs))
        return time.perf_counter() - start

    def warm_up(self):
        """Compile, and see how long a call takes."""
        self.estimate = self.once()
        if self.estimate < 1:
            self.estimate = min(self.once() for _ in range(3))

    def sample(self, index):
        """The mean over as many calls as make a measurable time."""
        number = max(1, min(100, round(SAMPLE_SECONDS / self.estimate)))
        self.samples[index] = self.mean(number)

    def mean(self, number):
        """Mean seconds of so many calls."""
        return sum(self.once() for _ in range(number)) / number


def interleave(contestants, budget, most_rounds):
    """Run all contestants in turn, in about `budget` seconds; a slow one sits out some rounds."""
    for each in contestants:
        each.warm_up()
    share = budget / len(contestants)

    def wanted(each):
        spent = max(each.estimate, SAMPLE_SECONDS)
        return max(FEWEST_ROUNDS, min(most_rounds, int(share / spent)))

    rounds = max(wanted(each) for each in contestants)
    # Strides are powers of two, so that any two contestants share all the rounds of the slower.
    strides = [2 ** ((rounds // wanted(each)).bit_length() - 1) for each in contestants]
    for index in range(rounds):
        for each, stride in zip(contestants, strides, strict=True):
            if index % stride == 0:
                each.sample(index)


def summary(values):
    """Median, least, most and count."""
    values = list(values)
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "rounds": len(values),
    }


def ratio(numerator, denominator):
    """The summary of the ratios of the rounds that both ran."""
    shared = numerator.samples.keys() & denominator.samples.keys()
    return summary(numerator.samples[i] / denominator.samples[i] for i in sorted(shared))
