"""Pictures of views and of neighbours."""

from __future__ import annotations

from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from massl.method.augment import normalise, pixels_of
from massl.training.grids import CELL, ROWS, neighbours_grid, views_grid


def cell(grid: torch.Tensor, row: int, column: int) -> torch.Tensor:
    """The middle of a cell; cells lie two pixels apart."""
    top, left = (2 + place * (CELL + 2) for place in (row, column))
    return grid[:, top : top + CELL, left : left + CELL]


def test_views_are_shown_as_they_are_an_image_a_row() -> None:
    large = torch.randint(0, 256, (2, 10, 3, CELL, CELL), dtype=torch.uint8)
    small = torch.randint(0, 256, (3, 10, 3, 1, 1), dtype=torch.uint8).expand(-1, -1, -1, 32, 32)
    assert (pixels_of(normalise(large)) - large).abs().max() < 1e-3
    grid = views_grid([normalise(large), normalise(small)])
    assert grid.dtype == torch.uint8
    assert grid.shape == (3, ROWS * (CELL + 2) + 2, 5 * (CELL + 2) + 2)
    assert torch.equal(cell(grid, 3, 1), large[1, 3])
    assert torch.equal(cell(grid, 7, 4)[:, 5, 5], small[2, 7, :, 0, 0])


def test_neighbours_stand_beside_what_they_are_near() -> None:
    angles = torch.linspace(0, 1, 15)
    z = torch.stack([angles.cos(), angles.sin()], 1)
    pixels = (torch.arange(15) * 10).to(torch.uint8).view(15, 1, 1, 1).expand(-1, 3, 16, 16)
    grid = neighbours_grid(pixels, z)
    rows = [[int(cell(grid, row, column)[0, 9, 9]) // 10 for column in range(8)] for row in range(8)]
    assert [row[0] for row in rows] == [0, 2, 4, 6, 8, 10, 12, 14]
    for row in rows:
        assert row == sorted(row, key=lambda image: abs(image - row[0]))
    assert neighbours_grid(pixels[:2], z[:2]).shape == (3, 2 * (CELL + 2) + 2, 2 * (CELL + 2) + 2)


def test_a_run_shows_both(run: Path) -> None:
    board = EventAccumulator(str(run))
    board.Reload()
    assert [event.step for event in board.Images("views")] == [0]
    assert [event.step for event in board.Images("neighbours")][-1] == 8
    assert board.Images("views")[0].encoded_image_string.startswith(b"\x89PNG")
