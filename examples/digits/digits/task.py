"""The data and the model: nothing in this module knows about Flower."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

CLASSES = 10
HIDDEN_UNITS = 32
BATCH_SIZE = 32
TEST_FRACTION = 0.2
# Smaller means more uneven: at 0.5 most nodes hardly see some of the digits at all.
DIRICHLET_ALPHA = 0.5
# One seed for everybody: each process cuts the same data in the same way, and takes its own part.
DATA_SEED = 2024

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Indices = NDArray[np.int64]
Weights = list[Floats]


@dataclass(frozen=True)
class Digits:
    """Images of 8x8 grey values from 0 to 1, one row each, and the digit that each shows."""

    images: Floats
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Indices) -> "Digits":
        return Digits(self.images[indices], self.labels[indices])


def load_train_and_test() -> tuple[Digits, Digits]:
    """Return the digits to train on and those held out to measure accuracy."""
    images, labels = load_digits(return_X_y=True)
    digits = Digits(images / 16.0, labels.astype(np.int64))
    order = np.random.default_rng(DATA_SEED).permutation(len(digits))
    held_out = int(len(digits) * TEST_FRACTION)
    return digits.take(order[held_out:]), digits.take(order[:held_out])


def partition_by_class(labels: Labels, num_partitions: int) -> list[Indices]:
    """Deal out the examples of every class in shares drawn from a Dirichlet distribution."""
    rng = np.random.default_rng(DATA_SEED)
    parts: list[list[Indices]] = [[] for _ in range(num_partitions)]
    for digit in range(CLASSES):
        examples = np.flatnonzero(labels == digit)
        shares = rng.dirichlet([DIRICHLET_ALPHA] * num_partitions)
        cuts = (np.cumsum(shares)[:-1] * len(examples)).astype(int)
        for part, piece in zip(parts, np.split(examples, cuts), strict=True):
            part.append(piece)
    return [np.concatenate(part) for part in parts]


def load_partition(partition_id: int, num_partitions: int) -> Digits:
    """Return the part of the training digits that one node owns.

    Raises:
        ValueError: `partition_id` is not one of the `num_partitions`.
    """
    if not 0 <= partition_id < num_partitions:
        raise ValueError(f"partition-id {partition_id} is not below {num_partitions}")
    train, _ = load_train_and_test()
    return train.take(partition_by_class(train.labels, num_partitions)[partition_id])


def initial_weights() -> Weights:
    """Return the weights that training starts from: one hidden layer, one output per digit."""
    rng = np.random.default_rng(DATA_SEED)
    inputs = 64
    return [
        rng.normal(0.0, np.sqrt(2.0 / inputs), (inputs, HIDDEN_UNITS)),
        np.zeros(HIDDEN_UNITS),
        rng.normal(0.0, np.sqrt(2.0 / HIDDEN_UNITS), (HIDDEN_UNITS, CLASSES)),
        np.zeros(CLASSES),
    ]


def forward(weights: Weights, images: Floats) -> tuple[Floats, Floats]:
    """Return the hidden activations and the probability of each digit, one row per image."""
    w1, b1, w2, b2 = weights
    hidden = np.maximum(images @ w1 + b1, 0.0)
    logits = hidden @ w2 + b2
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    return hidden, scores / scores.sum(axis=1, keepdims=True)


def gradients(weights: Weights, batch: Digits) -> Weights:
    """Return the gradient of the mean cross-entropy over a batch, shaped like the weights."""
    hidden, probabilities = forward(weights, batch.images)
    d_logits = (probabilities - np.eye(CLASSES)[batch.labels]) / len(batch)
    d_hidden = (d_logits @ weights[2].T) * (hidden > 0)
    return [
        batch.images.T @ d_hidden,
        d_hidden.sum(axis=0),
        hidden.T @ d_logits,
        d_logits.sum(axis=0),
    ]


def train(
    weights: Weights, data: Digits, *, epochs: int, learning_rate: float, seed: int
) -> Weights:
    """Return the weights after some epochs of stochastic gradient descent."""
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(data))
        for start in range(0, len(data), BATCH_SIZE):
            batch = data.take(order[start : start + BATCH_SIZE])
            steps = zip(weights, gradients(weights, batch), strict=True)
            weights = [weight - learning_rate * gradient for weight, gradient in steps]
    return weights


def accuracy(weights: Weights, data: Digits) -> float:
    """Return the share of images, from 0 to 1, whose most probable digit is the right one."""
    _, probabilities = forward(weights, data.images)
    return float((probabilities.argmax(axis=1) == data.labels).mean())
