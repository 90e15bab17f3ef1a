"""Pairs of rows and columns whose costs are least in all, with NumPy alone."""

import numpy as np


def assign(costs: np.ndarray, most: float) -> list[tuple[int, int]]:
    """(row, column) pairs, each row and column at most once, of the least total cost; a pair that
    costs more than `most` stays apart, and costs `most`.

    The Hungarian method with potentials, rows added one by one.
    """
    if not costs.size:
        return []
    if costs.shape[0] > costs.shape[1]:
        return sorted((row, column) for column, row in assign(costs.T, most))
    rows, columns = costs.shape
    # A column of its own for each row: to stay apart.
    wide = np.full((rows, columns + rows), float(most))
    wide[:, :columns] = np.where(costs <= most, costs, 2.0 * abs(most) * (rows + 1) + 1.0)
    owner = _solve(wide)
    pairs = [(int(owner[column]), column) for column in range(columns) if owner[column] >= 0]
    return sorted(pair for pair in pairs if costs[pair] <= most)


def _solve(costs: np.ndarray) -> np.ndarray:
    """Which row each column belongs to, -1 for none."""
    rows, columns = costs.shape
    owner = np.full(columns + 1, -1)  # the last one stands for the row that is being added
    by_row, by_column = np.zeros(rows), np.zeros(columns + 1)
    for row in range(rows):
        owner[columns] = row
        at, least = columns, np.full(columns, np.inf)
        came, used = np.full(columns, columns), np.zeros(columns + 1, bool)
        while owner[at] >= 0:
            used[at] = True
            reduced = costs[owner[at]] - by_row[owner[at]] - by_column[:columns]
            free = ~used[:columns]
            better = free & (reduced < least)
            least[better], came[better] = reduced[better], at
            following = int(np.where(free, least, np.inf).argmin())
            step = least[following]
            by_row[owner[used]] += step
            by_column[used] -= step
            least[free] -= step
            at = following
        while at != columns:
            owner[at] = owner[came[at]]
            at = came[at]
    return owner[:columns]
