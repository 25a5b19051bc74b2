"""Lyndon words: one for each independent bracket, of channels and of vector fields alike."""

from itertools import product

__all__ = ["lyndon_words"]

type Word = tuple[int, ...]


def lyndon_words(channels: int, depth: int) -> list[Word]:
    """The words of 0, …, channels − 1 that come before all of their own rotations, up to so many
    letters: the shorter first, those of one length in the order of the dictionary.

    Each stands for a bracket, which together are a basis of all brackets: (i,) for i, (i, j) for
    [i, j]; (i, i, j) for [i, [i, j]], (i, j, j) for [[i, j], j], and for i < j < k (i, j, k) for
    [i, [j, k]] and (i, k, j) for [[i, k], j].

    >>> lyndon_words(2, 3)
    [(0,), (1,), (0, 1), (0, 0, 1), (0, 1, 1)]
    """
    return [
        word
        for length in range(1, depth + 1)
        for word in product(range(channels), repeat=length)
        if all(word < word[i:] + word[:i] for i in range(1, length))
    ]
