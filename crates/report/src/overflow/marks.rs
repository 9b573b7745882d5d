//! Places for the labels of marks that crowd.

use crate::svg::LETTER;

/// Height of a label's line, px.
const LINE: f64 = 13.0;
/// From a mark to its label, px.
const GAP: f64 = 9.0;

/// A label's box: its left, its right, and the middle of its line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) middle: f64,
}

// === impl Place ===

impl Place {
    fn meets(&self, other: &Place) -> bool {
        let beside = self.right < other.left || other.right < self.left;
        !beside && (self.middle - other.middle).abs() < LINE
    }

    fn holds(&self, (x, y): (f64, f64)) -> bool {
        (self.left - 4.0..self.right + 4.0).contains(&x) && (self.middle - y).abs() < LINE / 2.0
    }
}

/// A place for each label, beside its mark or as near above or below as there is room, within
/// `x` and `y`; where there is none, beside its mark all the same. Marks are taken from the top.
pub(super) fn places(marks: &[((f64, f64), String)], x: (f64, f64), y: (f64, f64)) -> Vec<Place> {
    let mut order: Vec<usize> = (0..marks.len()).collect();
    order.sort_by(|a, b| marks[*a].0.1.total_cmp(&marks[*b].0.1));
    let mut placed: Vec<Option<Place>> = vec![None; marks.len()];
    for at in order {
        let ((mark_x, mark_y), label) = &marks[at];
        let width = label.chars().count() as f64 * LETTER;
        let candidate = |rank: u32| {
            // Right and left of the mark, then a line higher and lower, and so on.
            let lines = f64::from((rank / 2).div_ceil(2));
            let down = if (rank / 2).is_multiple_of(2) {
                1.0
            } else {
                -1.0
            };
            let left = match rank % 2 {
                0 => mark_x + GAP,
                _ => mark_x - GAP - width,
            };
            Place {
                left,
                right: left + width,
                middle: mark_y + down * lines * LINE,
            }
        };
        let fits = |place: &Place| {
            let inside = place.left >= x.0
                && place.right <= x.1
                && place.middle >= y.0 + LINE / 2.0
                && place.middle <= y.1 - LINE / 2.0;
            let free = placed.iter().flatten().all(|other| !place.meets(other));
            inside && free && !marks.iter().any(|(mark, _)| place.holds(*mark))
        };
        let found = (0..160).map(candidate).find(fits);
        placed[at] = Some(found.unwrap_or_else(|| candidate(0)));
    }
    placed.into_iter().flatten().collect()
}
