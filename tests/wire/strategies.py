"""Hypothesis strategies for what travels: envelopes, commands, device lists."""

from typing import TypeVar

from hypothesis import strategies as st

from wire.commands import (
    Ack,
    AddPrekeys,
    AskRecord,
    Delivered,
    Delivery,
    DeviceCommand,
    Directory,
    Done,
    Enrol,
    Linked,
    LinkedDevice,
    LookUp,
    PublishList,
    PublishPrekeys,
    Receipts,
    RecordPiece,
    Refusal,
    RelayCommand,
    Submit,
    Subscribe,
    Withdraw,
)
from wire.envelope import Envelope
from wire.identity import SignedList, Token
from wire.limits import (
    BODY_BYTES_MIN,
    CREDIT_MAX,
    ML_KEM_768_PUBLIC_BYTES,
    UINT16_MAX,
    UINT32_MAX,
)
from wire.prekeys import Bundle, KemPrekey, OneTimePrekey, Prekeys, SignedPrekey
from wire.receipt import ReceiptEntry

T = TypeVar("T")

ids = st.binary(min_size=16, max_size=16)
keys = st.binary(min_size=32, max_size=32)
signatures = st.binary(min_size=64, max_size=64)
u16 = st.integers(0, UINT16_MAX)
u32 = st.integers(0, UINT32_MAX)
u64 = st.integers(0, 2**63 - 1)
numbers = st.integers(1, 2**63 - 1)
bodies = st.binary(min_size=BODY_BYTES_MIN, max_size=BODY_BYTES_MIN + 64)
kem_keys = st.binary(min_size=2, max_size=2).map(
    lambda seed: (seed * ML_KEM_768_PUBLIC_BYTES)[:ML_KEM_768_PUBLIC_BYTES]
)

_label = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
domains = st.lists(_label, min_size=1, max_size=3).map(".".join)
accounts = st.tuples(st.from_regex(r"[a-z0-9._+-]{1,12}", fullmatch=True), domains).map("@".join)


def tuples_of(element: st.SearchStrategy[T], low: int = 1, high: int = 3) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(element, min_size=low, max_size=high).map(tuple)


envelopes = st.builds(Envelope, ids, ids, u64, bodies)
signed_lists = st.builds(SignedList, st.binary(min_size=1, max_size=80), signatures)
tokens = st.builds(Token, st.binary(min_size=1, max_size=80), signatures)
one_time_prekeys = st.builds(OneTimePrekey, ids, keys, kem_keys, signatures)
signed_prekeys = st.builds(SignedPrekey, ids, keys, signatures)
kem_prekeys = st.builds(KemPrekey, ids, kem_keys, signatures)
prekeys = st.builds(Prekeys, keys, signed_prekeys, kem_prekeys, tuples_of(one_time_prekeys, 0, 2))
bundles = st.builds(Bundle, keys, signed_prekeys, kem_prekeys, tuples_of(one_time_prekeys, 0, 1))

device_commands: st.SearchStrategy[DeviceCommand] = st.one_of(
    st.builds(Submit, u32, accounts, keys, tuples_of(envelopes)),
    st.builds(Ack, u32, ids, tuples_of(ids)),
    st.builds(Withdraw, u32, ids, tuples_of(ids)),
    st.builds(Subscribe, u32, ids, u64, st.integers(0, CREDIT_MAX)),
    st.builds(Enrol, u32, tokens, signed_lists, prekeys),
    st.builds(PublishList, u32, signed_lists),
    st.builds(PublishPrekeys, u32, prekeys),
    st.builds(AddPrekeys, u32, tuples_of(one_time_prekeys)),
    st.builds(LookUp, u32, accounts, st.booleans()),
    st.builds(AskRecord, u32, ids, keys, u32),
)

relay_commands: st.SearchStrategy[RelayCommand] = st.one_of(
    st.builds(Linked, u64, tuples_of(st.builds(LinkedDevice, keys, st.booleans(), u16, u64))),
    st.builds(
        Receipts,
        st.binary(min_size=1, max_size=80),
        signatures,
        tuples_of(st.builds(ReceiptEntry, u32, u16, numbers, u32, st.binary(max_size=96))),
    ),
    st.builds(Delivery, ids, tuples_of(st.builds(Delivered, numbers, ids, u64, bodies))),
    st.builds(Refusal, u32, u16, st.text(max_size=20), u64, u32, st.binary(max_size=40)),
    st.builds(Directory, u32, signed_lists, tuples_of(bundles, 0, 2)),
    st.builds(RecordPiece, u32, keys, st.integers(1, 2**26), u32, st.binary(min_size=1, max_size=64)),
    st.builds(Done, tuples_of(u32)),
)
