"""Merkle trees over a list of records, as RFC 6962 section 2.1 defines them: roots, and both kinds of proof.

A root stands for every record before it and their order. Whoever keeps one can later be shown, with a few dozen
hashes, that a record is in the list (inclusion), and that the list has only grown since (consistency).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""The root of a tree without leaves (RFC 6962 section 2.1)."""


class BadProof(ValueError):
    """A proof does not prove what it should."""


def leaf_hash(record: bytes) -> bytes:
    """Hash a record. The prefix keeps a leaf from ever passing as an inner node."""
    return hashlib.sha256(b"\x00" + record).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees together."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree of which only what is needed to let it grow is kept: some 20 hashes for a million records."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()
    """Roots of the perfect subtrees that `size` leaves fall into, one for each 1 in its binary form, largest first."""

    def grow(self, leaf: bytes) -> "Tree":
        """Give the tree with one leaf more; `leaf` is its hash."""
        peaks = [*self.peaks, leaf]
        # Each trailing 1 of the old size is a subtree as large as the one that has just become complete.
        size = self.size
        while size & 1:
            right = peaks.pop()
            peaks.append(node_hash(peaks.pop(), right))
            size >>= 1
        return Tree(self.size + 1, tuple(peaks))

    @property
    def root(self) -> bytes:
        """The root over all leaves."""
        if not self.peaks:
            return EMPTY_ROOT
        root = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            root = node_hash(peak, root)
        return root

    @property
    def next_proof(self) -> tuple[bytes, ...]:
        """The inclusion proof of the next leaf in the tree that it completes.

        The next leaf is the rightmost one: all its siblings lie to its left, and are the peaks, the smallest first.
        """
        return tuple(reversed(self.peaks))


def tree_of(leaves: Sequence[bytes]) -> Tree:
    """Grow a tree from leaf hashes."""
    tree = Tree()
    for leaf in leaves:
        tree = tree.grow(leaf)
    return tree


def _split(size: int) -> int:
    """Give the largest power of two below `size`: how many leaves go to the left."""
    return int(1 << ((size - 1).bit_length() - 1))


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Prove that the leaf at `index` is in the tree of `leaves` (RFC 6962 section 2.1.1). Takes every leaf hash."""
    return Proofs(leaves).inclusion(index)


class Proofs:
    """Inclusion proofs of many leaves of one tree: each subtree's root is computed once, and kept."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._leaves = leaves
        self._roots: dict[tuple[int, int], bytes] = {}

    def __len__(self) -> int:
        return len(self._leaves)

    def inclusion(self, index: int) -> tuple[bytes, ...]:
        """Prove that the leaf at `index` is in the tree (RFC 6962 section 2.1.1)."""
        if not 0 <= index < len(self._leaves):
            raise ValueError(f"there is no leaf {index} among {len(self._leaves)}")
        proof: list[bytes] = []
        start, end = 0, len(self._leaves)
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                proof.append(self._root(middle, end))
                end = middle
            else:
                proof.append(self._root(start, middle))
                start = middle
        return tuple(reversed(proof))

    def _root(self, start: int, end: int) -> bytes:
        if end - start == 1:
            return self._leaves[start]
        known = self._roots.get((start, end))
        if known is None:
            middle = start + _split(end - start)
            known = self._roots[start, end] = node_hash(self._root(start, middle), self._root(middle, end))
        return known


def consistency_proof(leaves: Sequence[bytes], old_size: int) -> tuple[bytes, ...]:
    """Prove that the tree of the first `old_size` leaves is the beginning of the tree of all (section 2.1.2)."""
    if not 0 < old_size <= len(leaves):
        raise ValueError(f"a tree of {len(leaves)} leaves did not grow from one of {old_size}")
    proof: list[bytes] = []
    complete = True
    while old_size < len(leaves):
        middle = _split(len(leaves))
        if old_size <= middle:
            proof.append(tree_of(leaves[middle:]).root)
            leaves = leaves[:middle]
        else:
            proof.append(tree_of(leaves[:middle]).root)
            leaves, old_size, complete = leaves[middle:], old_size - middle, False
    # The old root itself is known to who asks, unless it is only a part of the old tree.
    if not complete:
        proof.append(tree_of(leaves).root)
    return tuple(reversed(proof))


def check_inclusion(leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Check that `leaf` is at `index` in the tree of `size` leaves with this root (RFC 9162 section 2.1.3.2).

    Raises:
        BadProof: it is not, or the proof has another length than such a proof has.
    """
    if not 0 <= index < size:
        raise BadProof(f"there is no record {index} in a tree of {size}")
    position, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise BadProof("the inclusion proof is too long")
        if position & 1 or position == last:
            found = node_hash(sibling, found)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        position, last = position >> 1, last >> 1
    if last:
        raise BadProof("the inclusion proof is too short")
    if found != root:
        raise BadProof("the inclusion proof leads to another root: the record is not the one that was logged")


def check_consistency(old: tuple[int, bytes], new: tuple[int, bytes], proof: Sequence[bytes]) -> None:
    """Check that the tree `new` is the tree `old` with leaves added (RFC 9162 section 2.1.4.2).

    Args:
        old: size and root.
        new: size and root.
        proof: as `consistency_proof` gives it.

    Raises:
        BadProof: it is not.
    """
    (old_size, old_root), (new_size, new_root) = old, new
    if not 0 < old_size <= new_size:
        raise BadProof(f"a tree of {new_size} records did not grow from one of {old_size}")
    if old_size == new_size:
        if proof or old_root != new_root:
            raise BadProof("two trees of one size have different roots")
        return
    # The old root stands first where the old tree is a perfect subtree of the new one.
    hashes = iter([old_root, *proof] if old_size & (old_size - 1) == 0 else proof)
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    seed = next(hashes, b"")
    found_old = found_new = seed
    for sibling in hashes:
        if last == 0:
            raise BadProof("the consistency proof is too long")
        if position & 1 or position == last:
            found_old, found_new = node_hash(sibling, found_old), node_hash(sibling, found_new)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            found_new = node_hash(found_new, sibling)
        position, last = position >> 1, last >> 1
    if last or found_old != old_root or found_new != new_root:
        raise BadProof("the consistency proof leads to other roots: the log was rewritten")
