"""Trees and proofs, against the definition of RFC 6962 and its published examples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureworker.core.merkle import (
    EMPTY_ROOT,
    BadProof,
    Proofs,
    Tree,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    tree_of,
)

# The eight records that certificate transparency's own tests use, and the roots of the trees of the first 1 to 8.
RECORDS = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")] + [
    bytes.fromhex("606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [leaf_hash(bytes([number])) for number in range(40)]


def by_definition(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, as it is written there."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    middle = 1
    while middle * 2 < len(leaves):
        middle *= 2
    return node_hash(by_definition(leaves[:middle]), by_definition(leaves[middle:]))


def test_the_published_roots_come_out() -> None:
    tree, roots = Tree(), []
    for record in RECORDS:
        tree = tree.grow(leaf_hash(record))
        roots.append(tree.root.hex())

    assert roots == ROOTS
    assert Tree().root.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("size", range(len(LEAVES)))
def test_a_tree_that_grew_is_the_tree_of_the_definition(size: int) -> None:
    assert tree_of(LEAVES[:size]).root == by_definition(LEAVES[:size])


@pytest.mark.parametrize("size", range(1, len(LEAVES)))
def test_every_leaf_is_proved_and_no_other(size: int) -> None:
    leaves = LEAVES[:size]
    root, proofs = tree_of(leaves).root, Proofs(leaves)
    for index, leaf in enumerate(leaves):
        proof = proofs.inclusion(index)
        assert proof == inclusion_proof(leaves, index)
        check_inclusion(leaf, index, size, root, proof)
        with pytest.raises(BadProof):
            check_inclusion(LEAVES[-1], index, size, root, proof)
        with pytest.raises(BadProof):
            check_inclusion(leaf, (index + 1) % size if size > 1 else 1, size, root, proof)
        with pytest.raises(BadProof):
            check_inclusion(leaf, index, size, root, (*proof, leaf))
        if proof:
            with pytest.raises(BadProof):
                check_inclusion(leaf, index, size, root, proof[:-1])


@pytest.mark.parametrize("size", range(1, len(LEAVES)))
def test_the_newest_leafs_proof_is_known_before_it_is_there(size: int) -> None:
    assert tree_of(LEAVES[: size - 1]).next_proof == inclusion_proof(LEAVES[:size], size - 1)


@pytest.mark.parametrize("size", range(1, len(LEAVES)))
def test_growth_is_proved_and_a_rewritten_past_is_not(size: int) -> None:
    new = (size, tree_of(LEAVES[:size]).root)
    for old_size in range(1, size + 1):
        old = (old_size, tree_of(LEAVES[:old_size]).root)
        proof = consistency_proof(LEAVES[:size], old_size)
        check_consistency(old, new, proof)
        with pytest.raises(BadProof):
            check_consistency((old_size, LEAVES[-1]), new, proof)
        with pytest.raises(BadProof):
            check_consistency(old, (size, LEAVES[-1]), proof)
        with pytest.raises(BadProof):
            check_consistency(old, new, (*proof, LEAVES[-1]))
        if proof:
            with pytest.raises(BadProof):
                check_consistency(old, new, proof[:-1])


def test_what_was_not_there_is_not_proved() -> None:
    with pytest.raises(ValueError, match="no leaf 3 among 3"):
        inclusion_proof(LEAVES[:3], 3)
    with pytest.raises(ValueError, match="did not grow from one of 4"):
        consistency_proof(LEAVES[:3], 4)
    with pytest.raises(BadProof, match="did not grow from one of 0"):
        check_consistency((0, EMPTY_ROOT), (3, LEAVES[0]), ())


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=60), st.data())
def test_whatever_the_records_are_their_proofs_hold(records: list[bytes], data: st.DataObject) -> None:
    leaves = [leaf_hash(record) for record in records]
    index = data.draw(st.integers(0, len(leaves) - 1))

    check_inclusion(leaves[index], index, len(leaves), tree_of(leaves).root, inclusion_proof(leaves, index))
