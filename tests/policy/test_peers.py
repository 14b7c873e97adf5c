"""The bounded table of datagram peers."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from twistedsock.policy.peers import PeerTable

quick = settings(max_examples=150, deadline=None)

Table = PeerTable[str, str]


def fill(table: Table, *names: str, source: str = "s") -> Table:
    """Add a peer of *source* for each of *names*, whose value is its name in capitals."""
    for name in names:
        table.add(name, name.upper(), source)
    return table


def test_a_peer_is_found_by_its_key() -> None:
    """A peer is found until it is removed, proven or not, and a stranger never."""
    table = fill(PeerTable(4), "a", "b")
    table.prove("b")
    assert (table.use("a"), table.use("b"), table.use("c")) == ("A", "B", None)
    assert list(table) == ["A", "B"]
    table.remove("a", "s")
    table.remove("b", "s")
    assert (table.use("a"), table.use("b"), len(table)) == (None, None, 0)


def test_nobody_goes_while_there_is_room() -> None:
    """A table makes no victims before it holds its capacity."""
    table = fill(PeerTable(2), "a")
    assert table.victims("s", shared=True) == []
    assert fill(table, "b").victims("s", shared=True) == ["A"]


def test_the_least_recently_used_goes_first() -> None:
    """Use keeps a peer; of the others the one used longest ago goes."""
    table = fill(PeerTable(3), "a", "b", "c")
    table.use("a")
    assert table.victims("s", shared=False) == ["B"]


def test_the_unproven_go_before_the_proven() -> None:
    """A proven peer stays while any unproven one is there, however long it was silent."""
    table = fill(PeerTable(3), "a", "b", "c")
    table.prove("a")
    assert table.victims("s", shared=False) == ["B"]
    table.prove("b")
    assert table.victims("s", shared=False) == ["C"]
    table.prove("c")
    table.use("a")
    assert table.victims("s", shared=False) == ["B"]


def test_proving_a_stranger_is_nothing() -> None:
    """A peer that is not there is not proven, and proving twice changes nothing."""
    table = fill(PeerTable(3), "a")
    table.prove("b")
    table.prove("a")
    table.prove("a")
    assert list(table) == ["A"]


def test_a_source_at_its_share_loses_its_own_oldest() -> None:
    """A source that is over its share pushes out its own peer, not another's."""
    table = fill(PeerTable(10, share=2), "x", source="other")
    fill(table, "a", "b")
    assert table.victims("s", shared=True) == ["A"]
    assert table.victims("s", shared=False) == []
    assert table.victims("other", shared=True) == []
    assert table.victims("new", shared=True) == []


def test_a_proven_peer_counts_for_its_share() -> None:
    """Proof does not lift the share: the source's oldest goes though it is proven."""
    table = fill(PeerTable(10, share=2), "a", "b")
    table.prove("a")
    assert table.victims("s", shared=True) == ["A"]


def test_one_victim_is_enough() -> None:
    """A source over its share in a full table loses one peer, and nobody else does."""
    table = fill(PeerTable(3, share=2), "x", source="other")
    fill(table, "a", "b")
    assert table.victims("s", shared=True) == ["A"]


def test_a_removed_peer_gives_its_share_back() -> None:
    """After a removal the source has room again; removing a stranger is nothing."""
    table = fill(PeerTable(10, share=1), "a")
    table.remove("a", "s")
    table.remove("a", "s")
    table.remove("b", "nobody")
    assert table.victims("s", shared=True) == []


def test_peers_may_be_removed_while_they_are_walked() -> None:
    """Closing every peer while walking the table reaches each of them once."""
    table = fill(PeerTable(10), "a", "b", "c", "d")
    table.prove("c")
    seen = []
    for peer in table:
        seen.append(peer)
        table.remove(peer.lower(), "s")
    assert sorted(seen) == ["A", "B", "C", "D"]
    assert len(table) == 0


@quick
@given(
    st.integers(1, 5),
    st.none() | st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2), st.booleans()), max_size=60),
)
def test_the_table_never_outgrows_its_bounds(
    capacity: int, share: int | None, steps: list[tuple[int, int, bool]]
) -> None:
    """Who adds after the victims have gone never passes the capacity or a source's share."""
    table: PeerTable[tuple[int, int], tuple[int, int]] = PeerTable(capacity, share)
    for number, source, prove in steps:
        key = (number, source)
        if table.use(key) is None:
            for victim in table.victims(str(source), shared=True):
                table.remove(victim, str(victim[1]))
            table.add(key, key, str(source))
        if prove:
            table.prove(key)
        assert table.use(key) == key
        peers = list(table)
        assert len(peers) == len(set(peers)) == len(table) <= capacity
        for one in range(3):
            assert share is None or sum(peer[1] == one for peer in peers) <= share
