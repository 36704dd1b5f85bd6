# SPDX-License-Identifier: Apache-2.0
"""The table of locks: shared or exclusive, all or none, and those who asked earlier first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hsm.tasks.locks import Lock, Locks, LockTable, conflict

one_lock = st.builds(Lock, st.sampled_from("abcd"), st.booleans())
some_locks = st.lists(one_lock, min_size=1, max_size=4).map(tuple)


def exclusive(name: str) -> Lock:
    return Lock(name)


def shared(name: str) -> Lock:
    return Lock(name, shared=True)


def test_an_exclusive_lock_is_held_by_one() -> None:
    table = LockTable()
    first = (exclusive("a"),)
    assert table.take(first)
    assert not table.take((exclusive("a"),))
    assert not table.take((shared("a"),))
    table.give_back(first)
    assert table.take((shared("a"),))


def test_a_shared_lock_is_held_by_many_and_keeps_out_who_wants_it_alone() -> None:
    table = LockTable()
    readers = [(shared("a"),), (shared("a"),)]
    assert all(table.take(locks) for locks in readers)
    assert not table.take((exclusive("a"),))
    table.give_back(readers[0])
    assert not table.take((exclusive("a"),)), "one reader is left"
    table.give_back(readers[1])
    assert table.take((exclusive("a"),))


def test_locks_are_taken_all_or_none() -> None:
    table = LockTable()
    assert table.take((exclusive("b"),))
    assert not table.take((exclusive("a"), exclusive("b")))
    assert table.take((exclusive("a"),)), "what was not taken is free"


def test_who_asked_earlier_comes_first_where_they_conflict_and_only_there() -> None:
    table = LockTable()
    assert table.take((shared("a"),))
    writer = (exclusive("a"),)
    assert not table.take(writer)
    assert not table.take((shared("a"),), earlier=[writer]), "a stream of readers would starve the writer"
    assert table.take((shared("b"),), earlier=[writer])


def test_of_two_that_look_alike_the_one_that_is_given_back_is_given_back() -> None:
    table = LockTable()
    first, second = (shared("a"),), (shared("a"),)
    assert table.take(first)
    assert table.take(second)
    table.give_back(first)
    table.give_back(first)
    assert not table.take((exclusive("a"),))


def test_a_lock_that_is_wanted_both_ways_is_wanted_alone() -> None:
    both = (exclusive("a"), shared("a"))
    for order in (both, both[::-1]):
        assert conflict(order, (shared("a"),))
        assert conflict((shared("a"),), order)


def test_nothing_conflicts_with_wanting_nothing() -> None:
    assert not conflict((), (exclusive("a"),))
    assert LockTable().take(())


@given(some_locks, some_locks)
def test_conflicts_are_mutual(one: Locks, other: Locks) -> None:
    assert conflict(one, other) is conflict(other, one)


@given(st.lists(st.tuples(some_locks, st.booleans()), max_size=30))
def test_whatever_is_taken_and_given_back_nobody_holds_what_another_holds_alone(
    asked: list[tuple[Locks, bool]],
) -> None:
    table, held = LockTable(), list[Locks]()
    for locks, gives_back in asked:
        if gives_back and held:
            table.give_back(held.pop(0))
        free = not any(conflict(locks, others) for others in held)
        assert table.take(locks) is free, "free locks are given, and no others"
        if free:
            held.append(locks)
