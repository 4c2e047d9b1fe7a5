"""Who may begin to join a gateway: bounded by address, given back with time and with the relay's word."""

from client.gateway.admission import ADDRESSES_MAX, Admission


def test_one_address_runs_out_and_the_others_do_not() -> None:
    admission = Admission(burst=3, per_s=1.0)
    assert [admission.admit("192.0.2.1", 0.0) for _ in range(4)] == [True, True, True, False]
    assert admission.admit("192.0.2.2", 0.0)


def test_joins_come_back_with_time_and_never_above_the_burst() -> None:
    admission = Admission(burst=2, per_s=0.5)
    assert [admission.admit("192.0.2.1", 0.0) for _ in range(3)] == [True, True, False]
    assert not admission.admit("192.0.2.1", 1.9)
    assert admission.admit("192.0.2.1", 2.0)
    assert [admission.admit("192.0.2.1", 1_000.0) for _ in range(3)] == [True, True, False]


def test_a_device_that_the_relay_knows_does_not_count() -> None:
    admission = Admission(burst=1, per_s=0.0)
    for _ in range(100):
        assert admission.admit("192.0.2.1", 0.0)
        admission.vouch("192.0.2.1", 0.0)
    admission.vouch("192.0.2.1", 0.0)
    assert [admission.admit("192.0.2.1", 0.0) for _ in range(2)] == [True, False]


def test_attack_the_addresses_of_one_ipv6_network_count_as_one() -> None:
    admission = Admission(burst=2, per_s=0.0)
    admitted = [admission.admit(f"2001:db8::{number:x}", 0.0) for number in range(1, 5)]
    assert admitted == [True, True, False, False]
    assert admission.admit("2001:db8:0:1::1", 0.0)
    assert admission.admit("fe80::1%eth0", 0.0)


def test_attack_many_addresses_take_bounded_memory() -> None:
    admission = Admission(burst=1, per_s=0.0)
    for number in range(ADDRESSES_MAX + 100):
        assert admission.admit(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0.0)
    assert repr(admission) == f"Admission(addresses={ADDRESSES_MAX})"


def test_what_is_no_address_is_a_name_of_its_own() -> None:
    admission = Admission(burst=1, per_s=0.0)
    assert [admission.admit("", 0.0) for _ in range(2)] == [True, False]
