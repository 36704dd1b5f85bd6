# SPDX-License-Identifier: Apache-2.0
"""The contract of leases: who holds one keeps all others out, for as long as any process carries it."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from hsm.contract.base import WAIT, Contract, eventually, ids, make, new_raw
from hsm.domains.base import Domain, Held, LeaseBusy, NewVolume, Wanted


def exclusive(new: NewVolume) -> list[Wanted]:
    return [Wanted(new.volume, new.image)]


def shared(new: NewVolume) -> list[Wanted]:
    return [Wanted(new.volume, new.image, shared=True)]


def is_free(domain: Domain, wanted: list[Wanted]) -> bool:
    """Whether leases can be had; they are let go of again."""
    try:
        domain.acquire(wanted).release()
    except LeaseBusy:
        return False
    return True


@contextmanager
def holding(held: Held) -> Iterator[None]:
    """A process that does nothing but to carry leases; killed at the end."""
    process = subprocess.Popen(["sleep", "600"], pass_fds=held.descriptors)
    try:
        yield
    finally:
        process.kill()
        process.wait()


class LeaseContract(Contract):
    """lease, acquire, has_lease, and the leases that begin_volume gives."""

    # ---- a domain's own

    def test_the_domain_s_lease_is_held_by_one_at_a_time(self, domain: Domain, other: Domain) -> None:
        with domain.lease(WAIT):
            for view in (domain, other):
                with pytest.raises(LeaseBusy) as busy, view.lease(0.0):
                    pytest.fail("held twice")
                assert busy.value.volume is None
                assert busy.value.holder
        with other.lease(0.0):
            pass

    def test_waiting_for_the_domain_s_lease_ends_in_time(self, domain: Domain, other: Domain) -> None:
        with domain.lease(WAIT):
            began = time.monotonic()
            with pytest.raises(LeaseBusy), other.lease(0.2):
                pytest.fail("held twice")
            assert 0.2 <= time.monotonic() - began < 5

    def test_who_waits_for_the_domain_s_lease_gets_it_when_it_is_free(self, domain: Domain, other: Domain) -> None:
        order: list[str] = []
        waiting = threading.Event()

        def wait(view: Domain, name: str) -> None:
            waiting.set()
            with view.lease(WAIT):
                order.append(name)

        for view in (domain, other):
            waiting.clear()
            thread = threading.Thread(target=wait, args=(view, "waited"))
            with domain.lease(WAIT):
                thread.start()
                waiting.wait(WAIT)
                order.append("held")
            thread.join(WAIT)
        assert order == ["held", "waited"] * 2

    def test_the_domain_s_lease_is_free_after_a_failure(self, domain: Domain, other: Domain) -> None:
        with pytest.raises(ZeroDivisionError), domain.lease(WAIT):
            raise ZeroDivisionError
        with other.lease(0.0):
            pass

    # ---- volumes'

    def test_an_exclusive_lease_keeps_everybody_out(self, domain: Domain, other: Domain) -> None:
        new = make(domain, new_raw())
        held = domain.acquire(exclusive(new))
        for view in (domain, other):
            for wanted in (exclusive(new), shared(new)):
                with pytest.raises(LeaseBusy) as busy:
                    view.acquire(wanted)
                assert busy.value.volume == new.volume
                assert busy.value.holder
        held.release()
        assert is_free(other, exclusive(new))

    def test_a_shared_lease_keeps_out_those_who_write(self, domain: Domain, other: Domain) -> None:
        new = make(domain, new_raw())
        readers = [domain.acquire(shared(new)), other.acquire(shared(new)), domain.acquire(shared(new))]
        for reader in readers:
            assert not is_free(other, exclusive(new))
            assert is_free(other, shared(new))
            reader.release()
        assert is_free(other, exclusive(new))

    def test_busy_is_told_at_once(self, domain: Domain, other: Domain) -> None:
        new = make(domain, new_raw())
        held = domain.acquire(exclusive(new))
        began = time.monotonic()
        with pytest.raises(LeaseBusy):
            other.acquire(exclusive(new))
        assert time.monotonic() - began < 1
        held.release()

    def test_several_leases_are_acquired_together_or_not_at_all(self, domain: Domain, other: Domain) -> None:
        volumes = sorted((make(domain, new_raw()) for _ in range(4)), key=lambda new: new.volume)
        wanted = [lease for new in reversed(volumes) for lease in exclusive(new)]
        for busy in volumes:
            held = other.acquire(exclusive(busy))
            with pytest.raises(LeaseBusy) as error:
                domain.acquire(wanted)
            assert error.value.volume == busy.volume
            assert all(is_free(other, exclusive(new)) for new in volumes if new is not busy)
            held.release()
        held = domain.acquire(wanted)
        assert not any(is_free(other, exclusive(new)) for new in volumes)
        held.release()
        assert all(is_free(other, exclusive(new)) for new in volumes)

    def test_leases_of_one_call_may_be_shared_and_exclusive(self, domain: Domain, other: Domain) -> None:
        one, two = make(domain, new_raw()), make(domain, new_raw())
        held = domain.acquire([*exclusive(one), *shared(two)])
        assert is_free(other, shared(two))
        assert not is_free(other, shared(one))
        assert not is_free(other, exclusive(two))
        held.release()

    def test_no_leases_are_always_free(self, domain: Domain) -> None:
        held = domain.acquire([])
        assert held.descriptors == ()
        held.release()

    def test_letting_go_twice_is_no_more_than_once(self, domain: Domain, other: Domain) -> None:
        new = make(domain, new_raw())
        held = domain.acquire(exclusive(new))
        held.release()
        taken = other.acquire(exclusive(new))
        held.release()
        assert not is_free(domain, shared(new))
        taken.release()

    # ---- carriers

    @pytest.mark.parametrize("kind", [exclusive, shared])
    def test_a_process_that_inherits_a_lease_keeps_it(
        self, domain: Domain, other: Domain, kind: Callable[[NewVolume], list[Wanted]]
    ) -> None:
        new = make(domain, new_raw())
        held = domain.acquire(kind(new))
        assert held.descriptors
        with holding(held):
            held.release()
            assert not is_free(other, exclusive(new))
            assert is_free(other, shared(new)) == (kind is shared)
        eventually(lambda: is_free(other, exclusive(new)))

    def test_a_lease_is_free_when_its_last_holder_is_gone(self, domain: Domain, other: Domain) -> None:
        new = make(domain, new_raw())
        held = domain.acquire(exclusive(new))
        with holding(held):
            with holding(held):
                held.release()
                assert not is_free(other, shared(new))
            assert not is_free(other, shared(new))
        eventually(lambda: is_free(other, exclusive(new)))

    def test_a_process_that_was_not_given_a_lease_does_not_keep_it(self, domain: Domain, other: Domain) -> None:
        new = make(domain, new_raw())
        held = domain.acquire(exclusive(new))
        process = subprocess.Popen(["sleep", "600"])
        held.release()
        free = is_free(other, exclusive(new))
        process.kill()
        process.wait()
        assert free

    def test_the_lease_of_a_new_volume_is_inherited_too(self, domain: Domain, other: Domain) -> None:
        new = new_raw()
        with domain.lease(WAIT):
            held = domain.begin_volume(new)
        with holding(held):
            held.release()
            assert not is_free(other, exclusive(new))
        eventually(lambda: is_free(other, exclusive(new)))

    # ---- places

    def test_a_volume_that_was_made_has_a_place_for_its_lease(self, domain: Domain) -> None:
        new = make(domain, new_raw())
        assert domain.has_lease(new.image, new.volume)
        assert not domain.has_lease(*ids())

    def test_the_lease_of_a_new_volume_is_held_from_its_beginning(self, domain: Domain, other: Domain) -> None:
        new = new_raw()
        with domain.lease(WAIT):
            held = domain.begin_volume(new)
            assert not is_free(other, shared(new))
            domain.make_data(new, [])
        assert not is_free(other, shared(new)), "letting go of the domain's lease lets go of nothing else"
        held.release()
        assert is_free(other, exclusive(new))

    def test_what_was_let_go_of_stays_so(self, domain: Domain, other: Domain) -> None:
        new = make(domain, new_raw())
        held = domain.acquire(exclusive(new))
        held.release()
        again = other.acquire(exclusive(new))
        held.release()
        assert not is_free(domain, shared(new))
        again.release()
