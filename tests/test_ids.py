"""Ids are what everybody takes for a random UUID."""

import uuid

from warmline_server.ids import new_id


def test_id_is_a_random_uuid_in_its_usual_spelling() -> None:
    for _ in range(1000):
        made = new_id()
        read = uuid.UUID(made)
        assert (str(read), read.version, read.variant) == (made, 4, uuid.RFC_4122)


def test_no_bit_of_it_is_fixed_but_those_of_version_and_variant() -> None:
    ids = [uuid.UUID(new_id()).int for _ in range(200)]
    always, never = ids[0], ids[0]
    for each in ids:
        always &= each
        never |= each

    assert always == 0x4 << 76 | 0x8 << 60
    assert never == 2**128 - 1 & ~(0xB << 76) & ~(0x4 << 60)
