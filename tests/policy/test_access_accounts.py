"""Access by user and group. The oracle is the rule in words, written out a second time."""

from __future__ import annotations

import grp
import pwd

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedsock.addresses import Credentials
from twistedsock.policy.access import AccessList, parse_account

ACCOUNTS = st.sets(
    st.tuples(st.sampled_from(["uid", "gid"]), st.integers(0, 4)).map("{0[0]}:{0[1]}".format),
    max_size=5,
)
PEERS = st.builds(
    Credentials,
    st.just(1),
    st.integers(0, 4),
    st.integers(0, 4),
    st.lists(st.integers(0, 4), max_size=3).map(tuple),
)


@settings(max_examples=300, deadline=None)
@given(ACCOUNTS, ACCOUNTS, PEERS)
def test_the_user_decides_then_any_denied_group(
    allow: set[str], deny: set[str], peer: Credentials
) -> None:
    """A user's own rule wins; then a denied group; then an allowed one; then the default."""
    deny -= allow
    user = f"uid:{peer.uid}"
    groups = {f"gid:{group}" for group in (peer.gid, *peer.groups)}
    if user in allow | deny:
        expected = user in allow
    elif groups & deny:
        expected = False
    else:
        expected = bool(groups & allow) or not allow
    assert AccessList(allow, deny).allows_user(peer) is expected


def test_names_are_users_and_groups_of_this_machine() -> None:
    """uid:root is uid:0, and a group's name is its number."""
    group = grp.getgrall()[-1]
    assert parse_account("uid:root") == ("uid", pwd.getpwnam("root").pw_uid) == ("uid", 0)
    assert parse_account(f"gid:{group.gr_name}") == ("gid", group.gr_gid)
    assert parse_account("uid:4294967294") == ("uid", 4294967294)
    access = AccessList(allow=["uid:root"])
    assert access.allows_user(Credentials(1, 0, 5))
    assert not access.allows_user(Credentials(1, 1, 0, (0,)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uid:nobody-has-this", "no user is called 'nobody-has-this', in 'uid:nobody-has-this'"),
        ("gid:nobody-has-this", "no group is called 'nobody-has-this'"),
        ("uid:-1", "no user is called '-1'"),
        ("uid:", "must be an IP address or prefix"),
        ("user:root", "must be an IP address or prefix"),
        ("pid:1", "must be an IP address or prefix"),
    ],
)
def test_what_is_no_account_is_told(text: str, message: str) -> None:
    """A wrong account is an error that says what is wrong with it."""
    with pytest.raises(ValueError, match=message):
        AccessList(allow=[text])


def test_one_account_under_two_names_cannot_be_allowed_and_denied() -> None:
    """The same user by name and by number, on both sides, is an error."""
    with pytest.raises(ValueError, match="both allowed and denied"):
        AccessList(allow=["uid:0"], deny=["uid:root"])


def test_the_sorts_do_not_meddle() -> None:
    """Networks say nothing of UNIX peers, and accounts nothing of IP peers."""
    root = Credentials(1, 0, 0)
    assert AccessList(allow=["10.0.0.0/8"]).allows_user(root)
    assert AccessList(allow=["uid:1"]).allows("192.0.2.1")
    both = AccessList(allow=["10.0.0.0/8", "uid:1"])
    assert not both.allows_user(root)
    assert not both.allows("192.0.2.1")
    assert AccessList(deny=["::/0", "0.0.0.0/0"]).allows_user(root)


def test_a_supplementary_group_counts_as_much_as_the_first() -> None:
    """A group that the peer is in by any way admits and refuses it."""
    peer = Credentials(1, 1000, 1000, (4, 27))
    assert AccessList(allow=["gid:27"]).allows_user(peer)
    assert not AccessList(deny=["gid:4"]).allows_user(peer)
    assert not AccessList(allow=["gid:27"], deny=["gid:4"]).allows_user(peer)
    assert AccessList(allow=["uid:1000"], deny=["gid:4"]).allows_user(peer)
    assert not AccessList(allow=["gid:28"]).allows_user(peer)
