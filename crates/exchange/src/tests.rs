//! The machines one by one; `expertmesh-testkit` has them together.

mod bundles;
mod clock;
mod combine;
mod conductor;
mod frames;
mod home;
mod home_run;
mod host;
mod ledger;
mod plan;
mod timeline;

use std::sync::Arc;

use bytes::Bytes;
use expertmesh_kernels::Format;
use expertmesh_wire::{FrameView, Tag};

use crate::{CombineRule, HostTable, Kept, Limits, ShardPlan};

/// Names of the endpoints of these tests.
pub(crate) fn names() -> Arc<[String]> {
    ["coordinator", "ann", "bob", "cid"]
        .map(String::from)
        .into()
}

/// Four experts: 0 and 2 at ann (endpoint 1), 1 at bob (2), 3 at cid (3).
pub(crate) fn table() -> HostTable {
    HostTable::from_endpoints(vec![1, 2, 1, 3], 4)
}

/// Rows of `hidden` f32 and chunks without end.
pub(crate) fn wide(hidden: usize) -> Limits {
    Limits {
        row_bytes: hidden * 4,
        chunk_bytes: 1 << 20,
        row_per_choice: false,
    }
}

/// Three tokens: the first chose 2, 0 and 1, the second nothing that was kept, the third 3 and 0.
pub(crate) const HAND: Kept<'static> = Kept {
    offsets: &[0, 3, 3, 5],
    targets: &[2, 0, 1, 3, 0],
    weights: &[0.5, 0.25, 0.125, 2.0, 4.0],
};

/// The plan of [`HAND`] for a home at `home`.
pub(crate) fn hand_plan(home: u32, limits: Limits) -> ShardPlan {
    ShardPlan::new(home, HAND, &table(), limits)
}

pub(crate) fn tag() -> Tag {
    Tag {
        session: 7,
        epoch: 1,
        step: 5,
        layer: 2,
        shard: 0,
        chunk: 0,
        attempt: 0,
    }
}

pub(crate) const F32_RULE: CombineRule = CombineRule {
    row_format: Format::F32,
    dtype: Format::F32,
    weight_in_dtype: false,
    weight_on_input: false,
    routed_scale: 1.0,
    shared_mean: false,
    one_by_one: false,
};

pub(crate) fn read(message: Bytes) -> FrameView {
    FrameView::read_prefixed(message).unwrap()
}
