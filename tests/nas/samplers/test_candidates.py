"""Designs that a sampler chooses from."""

import random

from nas.samplers.candidates import CANDIDATES, Candidates, Mutation
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SPACES, SearchSpace

SPACE = SearchSpace.load(SPACES / "retina.yaml")


def test_candidates_are_different_feasible_and_unknown():
    candidates = Candidates(SPACE)
    some = candidates.unknown(set(), [], random.Random(0))
    assert len({c.identity for c in some}) == len(some) == CANDIDATES
    assert all(SPACE.constraints.violation(c.cost) is None for c in some)
    known = {c.identity for c in some[:50]}
    others = candidates.unknown(known, [], random.Random(0))
    assert not known & {c.identity for c in others}


def test_a_mutation_changes_one_or_two_dimensions_and_those_conditional_on_them():
    trial = RandomTrial("parents")
    for seed in range(100):
        parent = SPACE.suggest(trial)
        child = SPACE.suggest(Mutation(SPACE.to_internal(parent), seed))
        SPACE.resolve(child)
        if child["backbone"] == parent["backbone"] and set(child) == set(parent):
            assert sum(child[name] != parent[name] for name in child) <= 2
